"""Idempotency keys and unique keys over HTTP, also where requests come at once and to two gateways."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import pytest

from tests.acceptance.http import WAIT, ended, problem, submitted, wrong
from tests.acceptance.site import Site, until
from tests.services.service import free_port

ADD = "/api/v1/tasks/shop.add"


@pytest.fixture(scope="session")
def gateways(live: Site, http: httpx.Client) -> Iterator[list[httpx.Client]]:
    """The first one, and another beside it on the same ledger and broker."""
    port = free_port()
    live.start("second", "tests.acceptance.site", "gateway", DURE_PORT=str(port))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as second:

        def answers() -> bool:
            try:
                return second.get("/healthz").status_code == 200
            except httpx.TransportError:
                return False

        until(answers, "the second gateway")
        yield [http, second]


@pytest.fixture
def key() -> str:
    return f"key-{time.monotonic_ns()}"


def keyed(key: str, **more: str) -> dict[str, str]:
    return {"Idempotency-Key": key} | more


def test_a_repeat_is_answered_to_the_byte_as_the_first_was(http: httpx.Client, key: str) -> None:
    body = {"x": 10**15, "y": -1}
    first = http.post(f"{ADD}?tag=b&tag=a&expires=60.5", json=body, headers=keyed(key))
    assert ended(http, first.json()["id"])["state"] == "SUCCESS"
    for shown in (key, f'"{key}"'):
        again = http.post(f"{ADD}?tag=b&tag=a&expires=60.5", json=body, headers=keyed(shown))
        assert (again.status_code, again.content) == (202, first.content)
        assert again.headers["location"] == first.headers["location"]
        assert (again.headers["idempotent-replayed"], first.headers.get("idempotent-replayed")) == ("true", None)


def test_a_key_belongs_to_one_request(http: httpx.Client, key: str) -> None:
    assert http.post(ADD, json={"x": 1}, headers=keyed(key)).status_code == 202
    for path, body in ((ADD, {"x": 2}), (f"{ADD}?priority=1", {"x": 1}), ("/api/v1/tasks/shop.echo", {"value": 1})):
        problem(http.post(path, json=body, headers=keyed(key)), 422, "idempotency-conflict")
    problem(http.post("/api/v1/jobs", json=[], headers=keyed("")), 422, "invalid")


@pytest.mark.parametrize("wrong_key", ["", '""', "x" * 256, "a\tb", "\x80"])
def test_what_can_be_no_key_is_refused(http: httpx.Client, wrong_key: str) -> None:
    headers = [(b"idempotency-key", wrong_key.encode("latin-1"))]
    assert wrong(http.post(ADD, json={"x": 1}, headers=headers)) == [["Idempotency-Key"]]


def test_several_jobs_and_a_wait_are_repeated_alike(http: httpx.Client, key: str) -> None:
    batch = [{"task": "shop.add", "args": [n], "tags": [key]} for n in range(3)]
    first, again = (http.post("/api/v1/jobs", json=batch, headers=keyed(key)) for _ in range(2))
    assert (again.status_code, again.content) == (202, first.content)
    assert len(http.get("/api/v1/jobs", params={"tag": key}).json()["jobs"]) == 3
    waited, repeated = (http.post(ADD, json={"x": 5}, headers=keyed(f"{key}-w", **WAIT)) for _ in range(2))
    assert (waited.status_code, repeated.status_code) == (200, 200)
    assert [answer.json()["id"] for answer in (waited, repeated)] == [waited.json()["id"]] * 2
    assert (repeated.json()["result"], repeated.headers["idempotent-replayed"]) == (7, "true")


def test_of_requests_that_come_at_once_one_makes_the_job_and_all_are_answered_alike(
    gateways: list[httpx.Client], key: str
) -> None:
    rounds, callers = 25, 6
    start = Barrier(callers)

    def call(caller: int) -> list[httpx.Response]:
        answers = []
        for n in range(rounds):
            start.wait(30)
            body = [{"task": "shop.add", "args": [n], "tags": [key]}] if n % 2 else {"args": [n], "tags": [key]}
            path = "/api/v1/jobs" if n % 2 else ADD
            answers.append(gateways[caller % 2].post(path, json=body, headers=keyed(f"{key}-{n}")))
        return answers

    with ThreadPoolExecutor(callers) as pool:
        by_caller = list(pool.map(call, range(callers)))
    for answers in zip(*by_caller, strict=True):
        assert {answer.status_code for answer in answers} == {202}, answers[0].text
        assert len({answer.content for answer in answers}) == 1
        assert len({answer.headers.get("location") for answer in answers}) == 1
        assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert len(gateways[0].get("/api/v1/jobs", params={"tag": key}).json()["jobs"]) == rounds


def test_of_two_requests_with_one_key_that_come_at_once_one_is_refused(gateways: list[httpx.Client], key: str) -> None:
    start = Barrier(2)

    def call(caller: int) -> list[int]:
        statuses = []
        for n in range(10):
            start.wait(30)
            body = {"args": [caller], "tags": [key]}
            statuses.append(gateways[caller].post(ADD, json=body, headers=keyed(f"{key}-{n}")).status_code)
        return statuses

    with ThreadPoolExecutor(2) as pool:
        mine, others = pool.map(call, range(2))
    assert [sorted(pair) for pair in zip(mine, others, strict=True)] == [[202, 422]] * 10
    assert len(gateways[0].get("/api/v1/jobs", params={"tag": key}).json()["jobs"]) == 10


# Unique keys.


def held(http: httpx.Client, job: dict[str, Any], **options: Any) -> bool:
    response = http.post(ADD, json={"args": [1], "unique_key": job["unique_key"], **options})
    assert response.status_code == 202, response.text
    is_held = response.headers.get("dure-unique") == "held"
    assert is_held is (response.json()["id"] == job["id"])
    return is_held


def test_while_a_job_holds_its_key_it_is_answered_with(http: httpx.Client, key: str) -> None:
    job = submitted(http, "shop.add", {"args": [1], "delay": 600, "unique_key": key})
    assert held(http, job)
    assert held(http, job, delay=5)
    assert http.post(f"/api/v1/jobs/{job['id']}/cancel").status_code == 200
    assert not held(http, job, delay=600)


def test_a_job_that_holds_its_key_until_it_is_begun_has_one_more_behind_it(http: httpx.Client, key: str) -> None:
    options = {"unique_key": key, "unique_until": "started"}
    job = submitted(http, "shop.sleep", {"args": [1.5], **options})
    until(lambda: http.get(f"/api/v1/jobs/{job['id']}").json()["started_at"], "the beginning")
    assert not held(http, job, unique_until="started", delay=600)


def test_a_key_that_is_held_for_a_time_outlasts_the_job(http: httpx.Client, key: str) -> None:
    job = submitted(http, "shop.add", {"args": [1], "unique_key": key, "unique_for": 600})
    ended(http, job["id"])
    assert held(http, job, unique_for=600)
    short = submitted(http, "shop.add", {"args": [1], "delay": 600, "unique_key": f"{key}-s", "unique_for": 0.001})
    assert not held(http, short, delay=600)


def test_a_repeat_of_a_request_that_met_a_held_key_is_answered_alike(http: httpx.Client, key: str) -> None:
    job = submitted(http, "shop.add", {"args": [1], "delay": 600, "unique_key": key})
    body = {"args": [1], "unique_key": key}
    first = http.post(ADD, json=body, headers=keyed(key))
    assert (first.json()["id"], first.headers["dure-unique"]) == (job["id"], "held")
    assert http.post(f"/api/v1/jobs/{job['id']}/cancel").json()["finished_at"]
    again = http.post(ADD, json=body, headers=keyed(key))
    assert again.content == first.content


def test_of_submissions_with_one_unique_key_that_come_at_once_one_is_made(
    gateways: list[httpx.Client], key: str
) -> None:
    start = Barrier(6)

    def call(caller: int) -> list[str]:
        ids = []
        for n in range(10):
            start.wait(30)
            body = {"args": [n], "delay": 600, "tags": [key], "unique_key": f"{key}-{n}"}
            ids.append(gateways[caller % 2].post(ADD, json=body).json()["id"])
        return ids

    with ThreadPoolExecutor(6) as pool:
        by_caller = list(pool.map(call, range(6)))
    assert [len(set(ids)) for ids in zip(*by_caller, strict=True)] == [1] * 10
    assert len(gateways[0].get("/api/v1/jobs", params={"tag": key}).json()["jobs"]) == 10
