"""The WebSocket: submitting, watching and cancelling over one connection, as docs/asyncapi.yaml describes it."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.acceptance.asyncapi import checked_server
from tests.acceptance.feeds import (
    KEEPS_ALL,
    WS,
    Gateway,
    asked,
    await_tasks,
    figure,
    serve,
    start_worker,
    told,
    until_done,
)
from tests.acceptance.http import ended, submitted
from tests.acceptance.site import PATIENCE, Site, site, until
from tests.services.modes import servers_of


@pytest.fixture(scope="module", params=["embedded", "production"])
def place(request: pytest.FixtureRequest) -> Iterator[Site]:
    with site(**servers_of(request), DURE_FEED_TIMEOUT="1.5", DURE_BODY_LIMIT="100000", **KEEPS_ALL) as found:
        yield found


@pytest.fixture(scope="module")
def gateway(place: Site) -> Gateway:
    found = serve(place)
    start_worker(place)
    await_tasks(found)
    return found


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    with gateway.client() as client:
        yield client


@pytest.fixture
def ws(gateway: Gateway) -> Iterator[ClientConnection]:
    with gateway.websocket() as connection:
        yield connection


def chunks(messages: list[dict[str, Any]], ref: str | None = None) -> list[Any]:
    return [m["data"]["chunk"] for m in messages if m.get("event") == "output" and ref in (None, m["ref"])]


def taken_by(ws: ClientConnection) -> list[dict[str, Any]]:
    """What had been written before it was cut off."""
    taken = []
    with suppress(ConnectionClosed):
        while True:
            taken.append(told(ws))
    return taken


def refused(ws: ClientConnection, **message: Any) -> dict[str, Any]:
    asked(ws, **message)
    answer = told(ws)
    assert answer["type"] == "error", answer
    checked_server(answer)
    problem: dict[str, Any] = answer["problem"]
    return problem


# Submitting and watching.


def test_a_job_is_submitted_and_watched_to_its_end(ws: ClientConnection) -> None:
    asked(ws, type="submit", ref="one", task="feed.count", kwargs={"until": 3}, queue="celery", watch=True)
    found = until_done(ws, "one")
    for message in found:
        checked_server(message)
    assert (found[0]["type"], found[0]["job"]["task"], found[0]["job"]["queue"]) == ("accepted", "feed.count", "celery")
    assert chunks(found) == [0, 1, 2]
    assert (found[-2]["event"], found[-2]["data"]["result"], found[-1]["type"]) == ("result", 3, "done")


def test_a_job_is_submitted_without_being_watched(ws: ClientConnection, http: httpx.Client) -> None:
    asked(ws, type="submit", ref="1", task="shop.add", args=[1, 2])
    receipt = told(ws)
    asked(ws, type="ping", ref="then")
    assert told(ws) == {"type": "pong", "ref": "then"}
    assert ended(http, receipt["job"]["id"])["result"] == 3


def test_several_jobs_are_watched_at_once_and_none_waits_for_another(ws: ClientConnection, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    asked(ws, type="submit", ref="slow", task="feed.count", args=[4, str(gate), 2], watch=True)
    for number in range(5):
        asked(ws, type="submit", ref=f"quick {number}", task="feed.count", args=[number], watch=True)
    found: list[dict[str, Any]] = []
    while sum(m["type"] == "done" for m in found) < 5:
        found.append(told(ws))
    assert "slow" not in {m["ref"] for m in found if m["type"] == "done"}
    gate.touch()
    found += until_done(ws, "slow")
    for number in range(5):
        assert chunks(found, f"quick {number}") == list(range(number))
    assert chunks(found, "slow") == [0, 1, 2, 3]


def test_the_same_submission_twice_with_a_key_is_one_job(ws: ClientConnection) -> None:
    jobs = set()
    for ref in ("1", "2"):
        asked(ws, type="submit", ref=ref, task="shop.add", args=[5], idempotency_key="the same")
        jobs.add(told(ws)["job"]["id"])
    assert len(jobs) == 1


def test_a_watch_goes_on_over_another_connection_without_a_gap_or_a_repeat(
    gateway: Gateway, http: httpx.Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job = submitted(http, "feed.count", {"until": 100, "gate": str(gate), "at": 50})
    first = []
    with gateway.websocket() as connection:
        asked(connection, type="watch", ref="a", job=job["id"])
        while len(chunks(first)) < 30:
            first.append(told(connection))
    gate.touch()
    with gateway.websocket() as connection:
        asked(connection, type="watch", ref="b", job=job["id"], after=first[-1]["id"])
        rest = until_done(connection, "b")
    assert chunks(first) + chunks(rest) == list(range(100))


def test_a_workflow_is_watched(ws: ClientConnection, http: httpx.Client) -> None:
    form = {"chain": [{"task": "feed.count", "args": [2]}, {"task": "shop.add", "args": [1]}]}
    flow = http.post("/api/v1/workflows", json=form).json()
    asked(ws, type="watch", ref="flow", workflow=flow["id"])
    found = until_done(ws, "flow")
    for message in found:
        checked_server(message)
    assert chunks(found) == [0, 1]
    assert found[-2]["data"]["result"] == 3
    assert "workflow" in {message.get("event") for message in found}


def test_progress_and_a_failure_are_told(ws: ClientConnection) -> None:
    asked(ws, type="submit", ref="p", task="feed.steps", args=[3], watch=True)
    asked(ws, type="submit", ref="f", task="shop.fail", args=["no"], watch=True)
    found: list[dict[str, Any]] = []
    while sum(m["type"] == "done" for m in found) < 2:
        found.append(told(ws))
    for message in found:
        checked_server(message)
    assert [m["data"]["current"] for m in found if m.get("event") == "progress"][-1] == 2
    assert [m["data"]["error"]["message"] for m in found if m.get("event") == "result" and m["ref"] == "f"] == ["no"]


def test_what_is_not_watched_any_more_says_no_more(ws: ClientConnection, http: httpx.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = submitted(http, "feed.count", {"until": 2, "gate": str(gate), "at": 1})
    asked(ws, type="watch", ref="w", job=job["id"])
    while told(ws).get("event") != "output":
        pass
    asked(ws, type="unwatch", ref="w")
    assert until_done(ws, "w")[-1] == {"type": "done", "ref": "w"}
    gate.touch()
    ended(http, job["id"])
    asked(ws, type="unwatch", ref="never")
    assert told(ws) == {"type": "done", "ref": "never"}
    asked(ws, type="watch", ref="w", job=job["id"])  # the name is free again
    assert chunks(until_done(ws, "w")) == [0, 1]


def test_jobs_and_workflows_are_cancelled(ws: ClientConnection, http: httpx.Client) -> None:
    job = submitted(http, "shop.add", {"args": [1], "delay": 600})
    asked(ws, type="cancel", ref="c", job=job["id"])
    answer = told(ws)
    checked_server(answer)
    assert (answer["type"], answer["ref"], answer["job"]["state"]) == ("cancelled", "c", "REVOKED")
    flow = http.post("/api/v1/workflows", json={"chain": [{"wait": {}}, {"task": "shop.add", "args": [1]}]}).json()
    asked(ws, type="cancel", ref="d", workflow=flow["id"])
    answer = told(ws)
    checked_server(answer)
    assert (answer["workflow"]["id"], answer["workflow"]["state"]) == (flow["id"], "REVOKED")


# What is refused.


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"type": "submit", "ref": "1", "task": "shop.ad", "args": [1]}, "unknown-task"),
        ({"type": "submit", "ref": "1", "task": "shop.add", "args": ["x"]}, "invalid"),
        ({"type": "submit", "ref": "1", "task": "shop.add", "args": [1], "priority": 99}, "invalid"),
        ({"type": "submit", "ref": "1", "task": "shop.add", "args": [1], "colour": "red"}, "invalid"),
        ({"type": "submit", "ref": "1"}, "invalid"),
        ({"type": "submit", "ref": 1, "task": "shop.add"}, "invalid"),
        ({"type": "submit", "task": "shop.add", "args": [1]}, "invalid"),
        ({"type": "watch", "ref": "1", "job": "nobody"}, "unknown-job"),
        ({"type": "watch", "ref": "1", "workflow": "nobody"}, "unknown-workflow"),
        ({"type": "watch", "ref": "1"}, "invalid"),
        ({"type": "watch", "ref": "1", "job": "a", "workflow": "b"}, "invalid"),
        ({"type": "watch", "ref": "1", "job": "a", "since": "b"}, "invalid"),
        ({"type": "cancel", "ref": "1", "job": "nobody"}, "unknown-job"),
        ({"type": "cancel", "ref": "1", "workflow": "nobody"}, "unknown-workflow"),
        ({"type": "shout", "ref": "1"}, "invalid"),
        ({"ref": "1"}, "invalid"),
        ({"type": "ping", "ref": "x" * 256}, "invalid"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_problem_and_the_connection_goes_on(
    ws: ClientConnection, message: dict[str, Any], kind: str
) -> None:
    assert refused(ws, **message)["type"] == f"urn:dure:problem:{kind}"
    asked(ws, type="ping")
    assert told(ws) == {"type": "pong"}


def test_a_refusal_is_the_one_of_http(ws: ClientConnection, http: httpx.Client) -> None:
    body = {"args": ["x"], "priority": 99}
    over_http = http.post("/api/v1/tasks/shop.add", json=body).json()
    assert refused(ws, type="submit", ref="1", task="shop.add", **body) == over_http


@pytest.mark.parametrize(
    ("text", "kind"),
    [("{", "malformed-json"), ("[" * 100 + "]" * 100, "too-deep"), ("[]", "invalid"), ("null", "invalid")],
)
def test_what_is_no_message_is_refused_without_a_ref(ws: ClientConnection, text: str, kind: str) -> None:
    ws.send(text)
    answer = told(ws)
    checked_server(answer)
    assert (answer["type"], answer["problem"]["type"]) == ("error", f"urn:dure:problem:{kind}")
    assert "ref" not in answer


def test_an_event_id_of_something_else_is_refused(ws: ClientConnection, http: httpx.Client) -> None:
    job = submitted(http, "shop.add", {"x": 1})
    assert refused(ws, type="watch", ref="1", job=job["id"], after="x")["type"] == "urn:dure:problem:invalid-event-id"


def test_a_name_in_use_is_refused_and_what_it_watches_goes_on(ws: ClientConnection, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    asked(ws, type="submit", ref="w", task="feed.count", args=[2, str(gate), 1], watch=True)
    while told(ws).get("event") != "output":
        pass
    asked(ws, type="watch", ref="w", job="any")
    *late, refusal = until_done(ws, "w")  # states and output go their own ways, so a state may come before it
    checked_server(refusal)
    assert (refusal["type"], refusal["problem"]["errors"][0]["loc"]) == ("error", ["ref"])
    assert [message for message in late if message.get("event") != "state"] == []
    gate.touch()
    assert chunks(until_done(ws, "w")) == [1]


def test_a_message_that_is_too_large_closes_the_connection(ws: ClientConnection) -> None:
    ws.send(json.dumps({"type": "submit", "ref": "1", "task": "shop.add", "args": ["x" * 200_000]}))
    with pytest.raises(ConnectionClosed) as closed:
        ws.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


# The connection itself.


def test_the_subprotocol_is_chosen_where_it_is_offered(gateway: Gateway) -> None:
    with gateway.websocket(subprotocols=["other", WS]) as connection:
        assert connection.subprotocol == WS
    with gateway.websocket(subprotocols=None) as connection:
        assert connection.subprotocol is None
        asked(connection, type="ping")
        assert told(connection) == {"type": "pong"}


@pytest.mark.usefixtures("gateway")  # and the worker with it
def test_a_gateway_that_leaves_says_so_at_once(place: Site, tmp_path: Path) -> None:
    leaving = serve(place, "leaving")
    process = place.processes[-1]
    gate = tmp_path / "gate"
    with leaving.websocket() as connection:
        asked(connection, type="submit", ref="w", task="feed.count", args=[2, str(gate), 1], watch=True)
        while told(connection).get("event") != "output":
            pass
        os.kill(leaving.pid, signal.SIGTERM)
        late = taken_by(connection)  # states and output go their own ways to the reader, so one may come behind
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(PATIENCE)
    gate.touch()
    assert [message for message in late if message.get("event") != "state"] == []
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert process.wait(20) == 0
    log = place.log("leaving").read_text()
    assert "timeout graceful shutdown exceeded" not in log
    assert "Traceback" not in log


def test_a_reader_that_takes_nothing_is_cut_off_while_another_goes_on(gateway: Gateway, http: httpx.Client) -> None:
    cut_off = figure(http, "dure_feed_readers_cut_off_total", "websocket")
    job = submitted(http, "feed.flood", {"times": 600, "size": 20_000})
    # It stops reading from its socket while one message waits to be taken.
    with gateway.websocket(max_queue=1) as deaf, gateway.websocket() as connection:
        for each in (deaf, connection):
            asked(each, type="watch", ref="w", job=job["id"])
        assert [chunk[0] for chunk in chunks(until_done(connection, "w"))] == list(range(600))
        until(lambda: figure(http, "dure_feed_readers_cut_off_total", "websocket") > cut_off, "the cut")
        taken = taken_by(deaf)
    assert "result" not in {message.get("event") for message in taken}
    with gateway.websocket() as connection:
        last = [message["id"] for message in taken if message["type"] == "event"][-1]
        asked(connection, type="watch", ref="w", job=job["id"], after=last)
        assert until_done(connection, "w")[-2]["event"] == "result"


def test_open_feeds_are_counted_until_they_are_over(ws: ClientConnection, http: httpx.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    before = figure(http, "dure_feed_readers", "websocket")
    asked(ws, type="submit", ref="w", task="feed.count", args=[2, str(gate), 1], watch=True)
    while told(ws).get("event") != "output":
        pass
    assert figure(http, "dure_feed_readers", "websocket") == before + 1
    gate.touch()
    until_done(ws, "w")
    until(lambda: figure(http, "dure_feed_readers", "websocket") == before, "the end of the feed")
