"""Feeds as server-sent events, from gateways that are processes of their own."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.asyncapi import checked_event
from tests.acceptance.feeds import (
    KEEPS_ALL,
    Gateway,
    await_tasks,
    data,
    deaf,
    events,
    figure,
    outputs,
    reading,
    serve,
    start_worker,
    whole,
)
from tests.acceptance.http import problem, submitted
from tests.acceptance.site import Site, site, until
from tests.services.modes import servers_of


@pytest.fixture(scope="module", params=["embedded", "production"])
def place(request: pytest.FixtureRequest) -> Iterator[Site]:
    with site(**servers_of(request), DURE_FEED_TIMEOUT="1.5", **KEEPS_ALL) as found:
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


def job_feed(job: dict[str, Any]) -> str:
    return f"/api/v1/jobs/{job['id']}/events"


# A job's feed.


def test_a_feed_tells_what_was_and_what_happens_and_ends_with_the_result(http: httpx.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = submitted(http, "feed.count", {"until": 6, "gate": str(gate), "at": 3})
    found = []
    with reading(http, job_feed(job)) as source:
        assert source.response.headers["content-type"].startswith("text/event-stream")
        assert source.response.headers["cache-control"] == "no-store"
        for event in events(source):
            found.append(event)
            if outputs(found) == [0, 1, 2]:
                gate.touch()
    assert outputs(found) == [0, 1, 2, 3, 4, 5]
    assert found[-1].event == "result"
    assert (data(found[-1])["state"], data(found[-1])["result"]) == ("SUCCESS", 6)
    assert {data(event)["job"] for event in found} == {job["id"]}
    assert len({event.id for event in found}) == len(found)
    for event in found:
        checked_event(event.event, data(event))


@pytest.mark.parametrize("how", ["header", "query"])
def test_a_feed_goes_on_behind_any_of_its_events_also_after_the_job_has_ended(http: httpx.Client, how: str) -> None:
    job = submitted(http, "feed.count", {"until": 5})
    found = whole(http, job_feed(job))
    for place, event in enumerate(found[:-1], 1):
        given = {"after": event.id} if how == "query" else {}
        rest = whole(http, job_feed(job), event.id if how == "header" else None, **given)
        assert outputs(found[:place]) + outputs(rest) == [0, 1, 2, 3, 4]
        assert (rest[-1].event, data(rest[-1])["result"]) == ("result", 5)


def test_who_has_read_the_result_is_told_not_to_come_again(http: httpx.Client) -> None:
    job = submitted(http, "feed.count", {"until": 1})
    last = whole(http, job_feed(job))[-1]
    response = http.get(job_feed(job), headers={"Last-Event-ID": last.id})
    assert (response.status_code, response.content) == (204, b"")


def test_a_job_that_failed_ends_its_feed_with_the_error(http: httpx.Client) -> None:
    last = whole(http, job_feed(submitted(http, "shop.fail", {"message": "no"})))[-1]
    assert (last.event, data(last)["state"], data(last)["error"]["message"]) == ("result", "FAILURE", "no")


@pytest.mark.parametrize(("kind", "what"), [("jobs", "unknown-job"), ("workflows", "unknown-workflow")])
def test_what_nobody_submitted_has_no_feed(http: httpx.Client, kind: str, what: str) -> None:
    problem(http.get(f"/api/v1/{kind}/nobody/events"), 404, what)


def test_an_event_id_of_something_else_is_refused(http: httpx.Client) -> None:
    job = submitted(http, "shop.add", {"x": 1})
    for path in (job_feed(job), "/api/v1/events"):
        problem(http.get(path, headers={"Last-Event-ID": "not an id"}), 400, "invalid-event-id")
        problem(http.get(path, params={"after": "x"}), 400, "invalid-event-id")


def test_a_parameter_that_is_not_known_is_refused(http: httpx.Client) -> None:
    problem(http.get("/api/v1/events", params={"tsak": "feed.count"}), 422, "invalid")


# Workflows and filters.


def test_a_workflows_feed_tells_of_its_nodes_and_ends_with_its_result(http: httpx.Client) -> None:
    flow = http.post(
        "/api/v1/workflows",
        json={"chain": [{"task": "feed.count", "args": [3], "name": "first"}, {"task": "shop.add", "args": [1]}]},
    ).json()
    path = f"/api/v1/workflows/{flow['id']}/events"
    found = whole(http, path)
    assert outputs(found) == [0, 1, 2]
    assert {data(event).get("node") for event in found if event.event == "output"} == {"first"}
    assert (found[-1].event, data(found[-1])["result"]) == ("result", 4)
    assert {data(event)["workflow"] for event in found} == {flow["id"]}
    for event in found:
        checked_event(event.event, data(event))
    rest = whole(http, path, found[1].id)
    assert [event.id for event in rest] == [event.id for event in found[2:]]
    assert http.get(path, headers={"Last-Event-ID": found[-1].id}).status_code == 204


def test_a_filters_feed_tells_of_the_jobs_that_fit_and_of_no_others(http: httpx.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with reading(http, "/api/v1/events", task="feed.count") as source:
        submitted(http, "shop.add", {"x": 1})
        job = submitted(http, "feed.count", {"until": 2, "gate": str(gate)})
        found = []
        for event in events(source):
            gate.touch()  # the feed is told of the job; of its output it tells only what is pushed from then on
            found.append(event)
            checked_event(event.event, data(event))
            if event.event == "state" and data(event)["state"] == "SUCCESS":
                break
    assert {data(event)["job"] for event in found} == {job["id"]}
    assert {data(event)["task"] for event in found if event.event == "state"} == {"feed.count"}
    assert [data(event)["chunk"] for event in found if event.event == "output"] == [0, 1]


# Gateways that die and leave.


def test_a_gateway_that_is_killed_in_mid_stream_is_resumed_on_another_without_a_gap_or_a_repeat(
    place: Site, http: httpx.Client, tmp_path: Path
) -> None:
    gate, until_now = tmp_path / "gate", []
    doomed = serve(place, "doomed")
    with doomed.client() as other:
        job = submitted(other, "feed.count", {"until": 400, "gate": str(gate), "at": 200})
        with suppress(httpx.TransportError), reading(other, job_feed(job)) as source:
            for event in events(source):
                until_now.append(event)
                if len(outputs(until_now)) == 150:
                    gate.touch()
                    os.kill(doomed.pid, signal.SIGKILL)
    assert len(outputs(until_now)) >= 150
    rest = whole(http, job_feed(job), until_now[-1].id)
    assert outputs(until_now) + outputs(rest) == list(range(400))
    assert rest[-1].event == "result"


def test_a_gateway_that_leaves_ends_its_feeds_at_once_and_in_good_order(
    place: Site, http: httpx.Client, tmp_path: Path
) -> None:
    leaving = serve(place, "leaving")
    process = place.processes[-1]
    gate = tmp_path / "gate"
    with leaving.client() as other:
        job = submitted(other, "feed.count", {"until": 4, "gate": str(gate), "at": 2})
        found = []
        with reading(other, job_feed(job)) as source:
            for event in events(source):  # a feed that is only broken off raises here
                found.append(event)
                if event.event == "output" and len(outputs(found)) == 2:  # once: a state may come behind
                    os.kill(leaving.pid, signal.SIGTERM)
    assert process.wait(20) == 0
    log = place.log("leaving").read_text()
    assert "gateway stopped" in log
    assert "timeout graceful shutdown exceeded" not in log
    assert "Traceback" not in log
    gate.touch()
    assert outputs(found) + outputs(whole(http, job_feed(job), found[-1].id)) == [0, 1, 2, 3]


# Readers that are slow, or gone.


def test_a_reader_that_takes_nothing_is_cut_off_while_another_goes_on(gateway: Gateway, http: httpx.Client) -> None:
    cut_off = figure(http, "dure_feed_readers_cut_off_total", "sse")
    job = submitted(http, "feed.flood", {"times": 600, "size": 20_000})
    request = f"GET {job_feed(job)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with deaf(gateway, request) as connection:
        found = whole(http, job_feed(job))
        assert [chunk[0] for chunk in outputs(found)] == list(range(600))
        until(lambda: figure(http, "dure_feed_readers_cut_off_total", "sse") > cut_off, "the cut")
        taken = _rest_of(connection)
    assert b"event: result" not in taken
    last = re.findall(rb"\nid: (.+)\n", taken)[-1].decode()  # what it took may end in the middle of an id
    assert whole(http, job_feed(job), last)[-1].event == "result"


def _rest_of(connection: socket.socket) -> bytes:
    taken = bytearray()
    try:
        while part := connection.recv(1 << 20):
            taken += part
    except ConnectionResetError:
        pass
    return bytes(taken)


def test_open_readers_are_counted_until_they_have_gone(gateway: Gateway, http: httpx.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    # One that a test before left in the middle is found to have gone with the next thing that it is told.
    until(lambda: figure(http, "dure_feed_readers", "sse") == 0, "the end of the readers before")
    job = submitted(http, "feed.count", {"until": 1, "gate": str(gate)})
    with gateway.client() as other, reading(other, job_feed(job)) as source:
        next(events(source))
        assert figure(http, "dure_feed_readers", "sse") == 1
    gate.touch()
    until(lambda: figure(http, "dure_feed_readers", "sse") == 0, "the end of the reader")
