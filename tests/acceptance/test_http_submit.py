"""Submitting over HTTP, to real workers."""

import json
import time
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.acceptance.http import WAIT, ended, problem, submitted, wrong
from tests.acceptance.site import until

# Submitting one.


def test_a_job_is_accepted_with_its_place(http: httpx.Client) -> None:
    response = http.post("/api/v1/tasks/shop.add", json={"x": 2, "y": 3})
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert (job["task"], job["state"], job["kwargs"], job["origin"]) == (
        "shop.add",
        "ACCEPTED",
        {"x": 2, "y": 3},
        "dure",
    )
    assert http.get(response.headers["location"]).json()["id"] == job["id"]
    assert ended(http, job["id"])["result"] == 5


@pytest.mark.parametrize(
    ("name", "body", "result"),
    [
        ("shop.add", {"x": 1}, 3),
        ("shop.add", {"args": [1, 2]}, 3),
        ("shop.add", {"args": [1], "kwargs": {"y": 5}}, 6),
        ("shop.add", {"kwargs": {"x": 1}, "tags": ["a"]}, 3),
        ("shop.total", {"args": [1, 2, 3, 4]}, 10),
        ("shop.route", {"queue": "q"}, "q"),
        ("shop.route", {"queue": "q", "args": "x"}, "qx"),
        ("shop.route", {"kwargs": {"queue": "q"}}, "q"),
        ("shop.nothing", None, None),
        ("shop.nothing", {}, None),
        ("shop.echo", {"value": {"é\x00😀": [None, True, 1.5, -0.0, 10**30, "\x00"]}}, None),
        ("shop.echo", {"args": [{"args": [1]}]}, None),
    ],
)
def test_arguments_come_by_position_by_name_or_as_the_body_itself(
    http: httpx.Client, name: str, body: Any, result: Any
) -> None:
    if name == "shop.echo":
        result = body["value"] if "value" in body else body["args"][0]
    response = http.post(f"/api/v1/tasks/{name}", json=body, headers=WAIT)
    assert response.status_code == 200, response.text
    assert response.json()["result"] == result


def test_prefer_wait_answers_with_the_end_or_the_failure_or_not_yet(http: httpx.Client) -> None:
    done = http.post("/api/v1/tasks/shop.add", json={"x": 1}, headers=WAIT)
    assert (done.status_code, done.json()["state"], done.json()["result"]) == (200, "SUCCESS", 3)
    assert done.headers["preference-applied"] == "wait=20"

    failed = http.post("/api/v1/tasks/shop.fail", json={"message": "no é"}, headers=WAIT)
    found = problem(failed, 500, "job-failed")
    assert (found["state"], found["reason"]) == ("FAILURE", "error")
    assert (found["error"]["type"].rpartition(".")[2], found["error"]["message"]) == ("ValueError", "no é")
    assert "raise ValueError" in found["error"]["traceback"]

    slow = http.post("/api/v1/tasks/shop.sleep", json={"seconds": 3}, headers={"Prefer": "respond-async, wait=0"})
    assert slow.status_code == 202
    assert slow.headers["location"].endswith(slow.json()["id"])


@pytest.mark.parametrize("prefer", ["", "wait", "wait=", "wait=-1", "wait=x", "handling=lenient", "\xe9"])
def test_a_preference_that_is_not_understood_is_passed_over(http: httpx.Client, prefer: str) -> None:
    response = http.post("/api/v1/tasks/shop.add", json={"x": 1}, headers=[(b"prefer", prefer.encode("latin-1"))])
    assert response.status_code == 202


def test_an_unknown_task_is_told_with_its_near_names(http: httpx.Client) -> None:
    found = problem(http.post("/api/v1/tasks/shop.ad", json={}), 404, "unknown-task")
    assert "shop.add" in found["near"]
    assert "shop.add" in problem(http.post("/api/v1/tasks/store.add", json={}), 404, "unknown-task")["near"]
    assert problem(http.post("/api/v1/tasks/zzzz", json={}), 404, "unknown-task")["near"] == []
    problem(http.get("/api/v1/tasks/shop.ad"), 404, "unknown-task")


def test_force_submits_by_name_what_nobody_has_announced(http: httpx.Client) -> None:
    job = submitted(http, "later.task", {"args": [1], "queue": "nobody"}, force="true")
    assert (job["task"], job["queue"]) == ("later.task", "nobody")
    listed = until(
        lambda: [q for q in http.get("/api/v1/queues").json()["queues"] if q["name"] == "nobody" and q["messages"]],
        "the message in its queue",
    )
    assert listed[0]["consumers"] == 0
    problem(http.post("/api/v1/tasks/later.task?force=false", json={}), 404, "unknown-task")
    assert wrong(http.post("/api/v1/tasks/later.task?force=maybe", json={})) == [["force"]]


def test_a_task_that_the_worker_does_not_have_ends_as_unregistered(http: httpx.Client) -> None:
    job = submitted(http, "nobody.has.this", {}, force="true")
    assert (ended(http, job["id"])["state"], ended(http, job["id"])["reason"]) == ("FAILURE", "unregistered")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"x": "one"}, [["x"]]),
        ({}, [["x"]]),
        ({"x": 1, "z": 1}, [["z"]]),
        ({"x": 1, "y": None}, [["y"]]),
        ({"args": ["one"]}, [["args", 0]]),
        ({"args": [1, 2, 3]}, [["args", 2]]),
        ({"args": [1], "kwargs": {"x": 1}}, [["args", 0]]),
        ({"kwargs": {"x": "one"}}, [["kwargs", "x"]]),
        ({"kwargs": {}}, [["kwargs", "x"]]),
        ({"args": "x"}, [["args"]]),
        ({"args": [1], "kwargs": []}, [["kwargs"]]),
        ({"args": [1], "typo": 1}, [["typo"]]),
        ({"args": [1], "priority": 11}, [["priority"]]),
        ({"args": [1], "tags": ["a", "\x00"]}, [["tags", 1]]),
        ({"args": [1], "queue": "a\x00"}, [["queue"]]),
        ({"args": [1], "queue": "x" * 256}, [["queue"]]),
        ({"args": [1], "eta": "tomorrow"}, [["eta"]]),
        ({"args": [1], "eta": "2027-01-01T00:00:00"}, [["eta"]]),
        ({"args": [1], "expires": -1}, [["expires"]]),
        ({"args": [1], "retries": 10**40}, [["retries"]]),
        ({"args": [1], "time_limit": 0}, [["time_limit"]]),
        ([1, 2], [["body"]]),
        ("text", [["body"]]),
        (7, [["body"]]),
    ],
)
def test_each_wrong_field_of_a_submission_is_named(http: httpx.Client, body: Any, where: Any) -> None:
    found = wrong(http.post("/api/v1/tasks/shop.add", json=body))
    assert sorted({json.dumps(place) for place in found}) == sorted(json.dumps(place) for place in where)


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("typo=1", [["typo"]]),
        ("priority=x", [["priority"]]),
        ("delay=inf", [["delay"]]),
        ("delay=nan", [["delay"]]),
        ("delay=-1", [["delay"]]),
        ("eta=5", [["eta"]]),
        ("queue=%00", [["queue"]]),
        ("queue=%FF", [["queue"]]),
        ("tag=%00", [["tags", 0]]),
        ("tag=", [["tags", 0]]),
        ("expires=-5", [["expires"]]),
    ],
)
def test_each_wrong_option_of_a_query_is_named(http: httpx.Client, query: str, where: Any) -> None:
    response = http.post(f"/api/v1/tasks/shop.add?{query}", json={"x": 1})
    assert [json.loads(p) for p in sorted({json.dumps(place) for place in wrong(response)})] == where


def test_options_come_in_the_query_or_beside_the_arguments(http: httpx.Client) -> None:
    job = submitted(http, "shop.add", {"x": 1}, tag=["a", "b%"], priority=3, expires=600, retries=2, time_limit=9.5)
    assert (job["tags"], job["priority"], job["retries"], job["time_limit"]) == (["a", "b%"], 3, 2, 9.5)
    began, expires = (datetime.fromisoformat(job[name]).timestamp() for name in ("created_at", "expires"))
    assert round(expires - began) == 600
    assert ended(http, job["id"])["state"] == "SUCCESS"
    assert submitted(http, "shop.add", {"args": [1], "tags": ["c"]})["tags"] == ["c"]


@pytest.mark.parametrize("name", ["eta", "expires"])
@pytest.mark.parametrize(
    "moment",
    ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"],
)
def test_moments_at_the_ends_of_the_calendar_are_taken_or_refused(http: httpx.Client, name: str, moment: str) -> None:
    response = http.post("/api/v1/tasks/shop.add", json={"args": [1], name: moment})
    if response.status_code != 202:
        assert wrong(response) == [[name]]
        return
    read = http.get(response.headers["location"])
    assert read.status_code == 200
    assert http.get(response.headers["location"] + "/result").status_code in (200, 202, 500)


def test_a_delayed_job_is_held_until_it_is_due(http: httpx.Client) -> None:
    job = submitted(http, "shop.add", {"args": [1], "delay": 5})
    assert job["state"] == "SCHEDULED"
    answer = http.get(f"/api/v1/jobs/{job['id']}/result")
    assert answer.status_code == 202
    assert 1 <= int(answer.headers["retry-after"]) <= 5
    found = ended(http, job["id"])
    assert found["result"] == 3
    assert datetime.fromisoformat(found["finished_at"]) >= datetime.fromisoformat(job["eta"])


def test_retry_after_of_a_job_due_in_an_hour_says_so(http: httpx.Client) -> None:
    job = submitted(http, "shop.add", {"args": [1], "delay": 3600})
    answer = http.get(f"/api/v1/jobs/{job['id']}/result")
    assert 3590 < int(answer.headers["retry-after"]) <= 3600


def test_a_job_that_expired_before_it_was_begun_ends_so(http: httpx.Client) -> None:
    job = submitted(http, "shop.add", {"args": [1], "expires": 0})
    found = ended(http, job["id"])
    assert (found["state"], found["reason"]) == ("FAILURE", "expired")


def test_a_stock_worker_runs_our_job_and_its_result_is_found(http: httpx.Client) -> None:
    def enabled() -> bool:
        found = {worker["hostname"]: worker for worker in http.get("/api/v1/workers").json()["workers"]}
        return bool(found.get("stock@here", {}).get("queues"))

    until(enabled, "what the census knows of the stock worker")
    response = http.post("/api/v1/tasks/shop.echo?queue=stock", json={"value": {"a": [1]}}, headers=WAIT)
    assert response.status_code == 200, response.text
    assert (response.json()["result"], response.json()["worker"]) == ({"a": [1]}, "stock@here")


# A result that is none.


@pytest.mark.parametrize(("how", "reason"), [("result", "unserializable"), ("exception", "error")])
def test_a_result_or_an_exception_that_cannot_be_written_is_a_failure_with_its_reason(
    http: httpx.Client, how: str, reason: str
) -> None:
    response = http.post("/api/v1/tasks/shop.awkward", json={"how": how}, headers=WAIT)
    assert problem(response, 500, "job-failed")["reason"] == reason


# Submitting several.


def test_several_jobs_are_submitted_as_one(http: httpx.Client) -> None:
    response = http.post(
        "/api/v1/jobs", json=[{"task": "shop.add", "args": [n, n], "tags": ["many"]} for n in range(5)]
    )
    assert response.status_code == 202
    jobs = response.json()["jobs"]
    assert [ended(http, job["id"])["result"] for job in jobs] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("second", "where"),
    [
        ({"task": "shop.add", "args": ["one"]}, [[1, "args", 0]]),
        ({"task": "shop.ad"}, [[1, "task"]]),
        ({"args": [1]}, [[1, "task"]]),
        ({"task": 5}, [[1, "task"]]),
        ({"task": "shop.add", "args": [1], "priority": 10}, [[1, "priority"]]),
        ({"task": "shop.add", "args": [1], "typo": 10}, [[1, "typo"]]),
        (7, [[1, "task"]]),
        (None, [[1, "task"]]),
    ],
)
def test_of_several_jobs_one_wrong_one_keeps_all_from_being_submitted(
    http: httpx.Client, second: Any, where: Any
) -> None:
    tag = f"atomic-{time.monotonic_ns()}"
    response = http.post("/api/v1/jobs", json=[{"task": "shop.add", "args": [1], "tags": [tag]}, second])
    assert wrong(response) == where
    assert http.get("/api/v1/jobs", params={"tag": tag}).json()["jobs"] == []


def test_no_jobs_at_all_are_submitted_at_once_and_no_list_is_refused(http: httpx.Client) -> None:
    response = http.post("/api/v1/jobs", json=[])
    assert (response.status_code, response.json()) == (202, {"jobs": []})
    assert wrong(http.post("/api/v1/jobs", json={})) == [["body"]]
    assert wrong(http.post("/api/v1/jobs", content=b"")) == [["body"]]
    assert wrong(http.post("/api/v1/jobs?force=x", json=[])) == [["force"]]
    forced = http.post("/api/v1/jobs?force=true", json=[{"task": "later.task", "queue": "nobody"}])
    assert forced.status_code == 202
    assert wrong(http.post("/api/v1/jobs?force=true", json=[{"task": "a\x00"}])) == [[0, "task"]]
