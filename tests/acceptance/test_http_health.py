"""Health, metrics and the document; and a gateway whose parts are down."""

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tests.acceptance.http import NAMES, problem, submitted
from tests.acceptance.site import Site, site, until
from tests.services import PostgreSQL, RabbitMQ

# Health, metrics, the document.


def test_a_working_gateway_is_alive_and_ready(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "alive"}
    response = until(lambda: (r := http.get("/readyz")).status_code == 200 and r, "every service is ready")
    assert set(response.json()["checks"]) == {
        *("ledger", "broker", "recorder", "relay", "coordinator", "dead-letters", "sweeper", "census")
    }
    assert all(check["ok"] for check in response.json()["checks"].values())


def test_metrics_tell_jobs_queues_and_workers(http: httpx.Client) -> None:
    submitted(http, "shop.add", {"args": [1], "delay": 600})
    text = http.get("/metrics").text
    assert 'dure_jobs{state="SCHEDULED"}' in text
    assert 'dure_jobs_dead{reason="expired"}' in text
    assert "dure_ledger_up 1.0" in text
    assert "dure_broker_up 1.0" in text
    assert 'dure_queue_consumers{queue="celery"}' in text
    assert re.search(r"dure_workers_online [1-4]\.0", text)


def test_the_document_has_each_task_as_an_operation_of_its_own(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    operation = document["paths"]["/api/v1/tasks/shop.add"]["post"]
    assert operation["description"] == "Add two numbers."
    one, _ = operation["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    schema = document["components"]["schemas"][one["$ref"].rpartition("/")[2]]
    assert schema["properties"] == {"x": {"type": "integer"}, "y": {"type": "integer", "default": 2}}
    identifiers = [
        found["operationId"] for path in document["paths"].values() for found in path.values() if "operationId" in found
    ]
    assert len(identifiers) == len(set(identifiers))
    assert {f"/api/v1/tasks/{quote(name)}" for name in NAMES} <= set(document["paths"])
    assert http.get("/docs").status_code == 200


def test_every_reference_in_the_document_leads_somewhere(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()

    def follow(node: Any) -> None:
        if isinstance(node, dict):
            target = node.get("$ref")
            if isinstance(target, str):
                found: Any = document
                for part in target.removeprefix("#/").split("/"):
                    found = found[part.replace("~1", "/").replace("~0", "~")]
            for child in node.values():
                follow(child)
        elif isinstance(node, list):
            for child in node:
                follow(child)

    follow(document)


# Parts that are down.


def test_a_gateway_whose_parts_are_down_says_which_and_recovers(
    rabbitmq: RabbitMQ, postgres: PostgreSQL, tmp_path: Path
) -> None:
    broker, ledger = rabbitmq.start().vhost(), postgres.start().database()
    with site(DURE_BROKER_URL=broker, DURE_LEDGER_URL=ledger) as place, place.client() as http:
        place.start_gateway()
        place.await_gateway()
        until(lambda: http.get("/readyz").status_code == 200, "a ready gateway")

        rabbitmq.stop()  # killed, it can lose a quorum queue that it made a moment ago
        try:
            response = until(lambda: (r := http.get("/readyz")).status_code == 503 and r, "an unready gateway")
            checks = response.json()["checks"]
            assert (checks["broker"]["ok"], checks["ledger"]["ok"]) == (False, True)
            assert "guest:guest" not in response.text
            job = submitted(http, "later.task", {"queue": "q"}, force="true")
            due = submitted(http, "later.task", {"queue": "q", "delay": 0.1}, force="true")
            problem(http.get("/api/v1/queues"), 503, "broker-unavailable")
            assert "dure_broker_up 0.0" in http.get("/metrics").text
            assert http.get("/healthz").status_code == 200
        finally:
            rabbitmq.start()
        until(lambda: http.get("/readyz").status_code == 200, "a ready gateway")
        for each in (job, due):
            until(lambda: http.get(f"/api/v1/jobs/{each['id']}").json()["state"] == "QUEUED", "the message")  # noqa: B023

        postgres.execute("CHECKPOINT")
        postgres.kill()
        try:
            response = until(lambda: (r := http.get("/readyz")).status_code == 503 and r, "an unready gateway")
            checks = response.json()["checks"]
            assert (checks["broker"]["ok"], checks["ledger"]["ok"]) == (True, False)
            refused = http.post("/api/v1/tasks/later.task?force=true", json={})
            problem(refused, 503, "ledger-unavailable")
            assert refused.headers["retry-after"]
            problem(http.get(f"/api/v1/jobs/{job['id']}"), 503, "ledger-unavailable")
            assert "dure_ledger_up 0.0" in http.get("/metrics").text
        finally:
            postgres.start()
        until(lambda: http.get("/readyz").status_code == 200, "a ready gateway")
        assert submitted(http, "later.task", {"queue": "q"}, force="true")["state"] == "ACCEPTED"


def test_a_caller_who_goes_away_in_the_middle_does_no_harm(live: Site) -> None:
    async def leave() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(
            b"POST /api/v1/tasks/shop.add HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        await writer.drain()
        writer.close()
        del reader

    for _ in range(5):
        asyncio.run(leave())
    with live.client() as http:
        assert http.get("/healthz").status_code == 200


def test_the_gateways_log_tells_of_no_error_that_was_not_foreseen(live: Site) -> None:
    """The last of those that use this site."""
    assert "not foreseen" not in live.log("gateway").read_text()
