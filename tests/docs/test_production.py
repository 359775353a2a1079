"""The README's production lines on a real RabbitMQ and a real PostgreSQL: only the URLs and the key are others."""

import re
from pathlib import Path

import httpx

from dure.url import scheme
from tests.docs.documents import Block, document
from tests.docs.shop import DEADLINE, Shop, until

STAYS = ("dure serve", "dure worker")


def production_block() -> Block:
    (block,) = [block for block in document("README.md").blocks if "DURE_BROKER_URL=" in block.text]
    return block


def test_the_production_lines_run_as_they_stand(tmp_path: Path, rabbitmq_url: str, postgres_url: str) -> None:
    block = production_block()
    written = dict(re.findall(r"export (DURE_\w+)=(\S+)", block.text))
    assert [scheme(written[name]) for name in ("DURE_BROKER_URL", "DURE_LEDGER_URL")] == ["amqp", "postgresql"]
    key = "k" * 43
    shop = Shop.open(
        tmp_path,
        DURE_BROKER_URL=rabbitmq_url,
        DURE_LEDGER_URL=postgres_url,
        DURE_API_KEYS=key,
    )
    serve, worker = (next(line for line in block.lines if line.startswith(start)) for start in STAYS)
    (check,) = [line for line in block.lines if line.startswith("dure check")]
    with (
        httpx.Client(base_url=shop.url, headers={"Authorization": f"Bearer {key}"}, timeout=DEADLINE) as client,
        shop.started(serve) as gateway_log,
    ):
        until(lambda: _answers(client, "/readyz"), gateway_log)
        with shop.started(worker) as worker_log:
            until(lambda: _answers(client, "/api/v1/tasks/tasks.add"), worker_log)
            answer = client.post("/api/v1/tasks/tasks.add", json={"x": 2, "y": 3}, headers={"Prefer": "wait=20"})
            assert (answer.status_code, answer.json()["result"]) == (200, 5)
            assert httpx.get(f"{shop.url}/api/v1/jobs", timeout=DEADLINE).status_code == 401
            (told,) = shop.run([Block(block.place, "sh", check, None)])
            assert "no problems" in told


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.HTTPError:
        return False
