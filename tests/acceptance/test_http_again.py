"""Cancelling jobs, sending ended ones again, and dead letters, over HTTP and on real workers."""

import time
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.acceptance.http import ended, problem, submitted, wrong
from tests.acceptance.site import Site, until


@pytest.fixture(scope="session")
def forked(live: Site) -> str:
    """A queue whose worker can end what it runs."""
    live.start_worker("forked", "-Q", "forked", "-P", "prefork", "-c", "1")
    live.await_worker("forked")
    return "forked"


@pytest.fixture
def tag() -> str:
    return f"again-{time.monotonic_ns()}"


def in_state(http: httpx.Client, job_id: str, state: str) -> dict[str, Any]:
    def look() -> Any:
        job = http.get(f"/api/v1/jobs/{job_id}").json()
        return job if job["state"] == state else None

    job: dict[str, Any] = until(look, f"the state {state} of {job_id}")
    return job


def failed(http: httpx.Client, tag: str, *messages: str) -> list[str]:
    jobs = [submitted(http, "shop.fail", {"args": [message], "tags": [tag]})["id"] for message in messages]
    assert [ended(http, job)["state"] for job in jobs] == ["FAILURE"] * len(jobs)
    return jobs


# Cancelling.


@pytest.mark.parametrize("options", [{"delay": 600}, {"queue": "no-worker-here"}], ids=["scheduled", "queued"])
def test_a_job_that_nobody_has_begun_is_revoked_at_once(http: httpx.Client, options: dict[str, Any]) -> None:
    job = submitted(http, "shop.add", {"args": [1], **options})["id"]
    if "queue" in options:
        in_state(http, job, "QUEUED")
    response = http.post(f"/api/v1/jobs/{job}/cancel")
    found = response.json()
    assert (response.status_code, found["state"], found["reason"]) == (200, "REVOKED", "revoked")
    assert found["cancel_requested_at"] == found["finished_at"]
    assert http.post(f"/api/v1/jobs/{job}/cancel").json() == found


def test_a_cancelled_job_does_not_run_when_a_worker_comes(live: Site, http: httpx.Client, tag: str) -> None:
    cancelled, kept = (submitted(http, "shop.add", {"args": [n], "queue": tag})["id"] for n in range(2))
    in_state(http, kept, "QUEUED")
    assert http.post(f"/api/v1/jobs/{cancelled}/cancel").status_code == 200
    late = live.start_worker("late", "-Q", tag)
    assert ended(http, kept)["state"] == "SUCCESS"
    late.terminate()
    found = http.get(f"/api/v1/jobs/{cancelled}").json()
    assert (found["state"], found["started_at"], found["result"]) == ("REVOKED", None, None)


def test_a_job_that_runs_is_ended_by_its_worker(http: httpx.Client, forked: str) -> None:
    job = submitted(http, "shop.sleep", {"args": [20], "queue": forked})["id"]
    in_state(http, job, "STARTED")
    response = http.post(f"/api/v1/jobs/{job}/cancel")
    assert (response.status_code, response.json()["state"]) == (202, "STARTED")
    assert response.json()["cancel_requested_at"]
    found = ended(http, job)
    assert (found["state"], found["reason"]) == ("REVOKED", "terminated")
    assert http.post(f"/api/v1/jobs/{job}/cancel").status_code == 200
    after = submitted(http, "shop.add", {"args": [1], "queue": forked})["id"]
    assert ended(http, after)["state"] == "SUCCESS"


def test_a_job_that_has_ended_or_is_unknown_cannot_be_cancelled(http: httpx.Client, tag: str) -> None:
    (job,) = failed(http, tag, "no")
    found = problem(http.post(f"/api/v1/jobs/{job}/cancel"), 409, "job-ended")
    assert (found["job"], found["state"], found["reason"], found["error"]["message"]) == (job, "FAILURE", "error", "no")
    problem(http.post("/api/v1/jobs/nobody/cancel"), 404, "unknown-job")
    problem(http.post("/api/v1/jobs/%00/cancel"), 404, "unknown-job")


# Sending one again.


def test_a_job_is_sent_again_as_it_was_with_what_was_changed(http: httpx.Client, tag: str) -> None:
    job = submitted(http, "shop.add", {"args": [1, 2], "tags": [tag], "priority": 3})["id"]
    ended(http, job)
    response = http.post(f"/api/v1/jobs/{job}/retry")
    again = response.json()
    assert (response.status_code, response.headers["location"]) == (202, f"/api/v1/jobs/{again['id']}")
    told = (again["retry_of"], again["args"], again["tags"], again["priority"], again["state"])
    assert told == (job, [1, 2], [tag], 3, "ACCEPTED")
    assert ended(http, again["id"])["result"] == 3
    changed = http.post(f"/api/v1/jobs/{job}/retry", json={"kwargs": {"y": 40}, "tags": []}).json()
    assert (changed["args"], changed["tags"]) == ([1, 40], [])
    assert ended(http, changed["id"])["result"] == 41
    replaced = http.post(f"/api/v1/jobs/{job}/retry", json={"args": [5], "delay": 600}).json()
    assert (replaced["args"], replaced["kwargs"], replaced["state"]) == ([5], {}, "SCHEDULED")
    twice = http.post(f"/api/v1/jobs/{job}/retry", json={"args": [5], "delay": 600}).json()
    assert twice["id"] == replaced["id"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ([], [["body"]]),
        ({"args": "x"}, [["args"]]),
        ({"args": ["one"]}, [["args", 0]]),
        ({"kwargs": {"z": 1}}, [["kwargs", "z"]]),
        ({"priority": 10}, [["priority"]]),
        ({"typo": 1}, [["typo"]]),
        ({"filter": {}}, [["filter"]]),
    ],
)
def test_each_wrong_field_of_a_retry_is_named(http: httpx.Client, tag: str, body: Any, where: Any) -> None:
    job = submitted(http, "shop.add", {"args": [1], "tags": [tag]})["id"]
    ended(http, job)
    assert wrong(http.post(f"/api/v1/jobs/{job}/retry", json=body)) == where
    assert len(http.get("/api/v1/jobs", params={"tag": tag}).json()["jobs"]) == 1


def test_an_open_or_an_unknown_job_cannot_be_sent_again(http: httpx.Client) -> None:
    job = submitted(http, "shop.add", {"args": [1], "delay": 600})["id"]
    found = problem(http.post(f"/api/v1/jobs/{job}/retry"), 409, "job-not-ended")
    assert (found["job"], found["state"]) == (job, "SCHEDULED")
    problem(http.post("/api/v1/jobs/nobody/retry"), 404, "unknown-job")
    problem(http.post("/api/v1/jobs/nobody/retry", content=b"{", headers=JSON), 400, "malformed-json")
    problem(http.post("/api/v1/jobs/nobody/retry", content=b"{}"), 415, "not-json")


JSON = {"Content-Type": "application/json"}

# Sending many again.


def test_what_fits_a_filter_is_shown_by_a_dry_run_and_then_sent_at_a_rate(http: httpx.Client, tag: str) -> None:
    jobs = failed(http, tag, "a", "b", "c")
    ended(http, submitted(http, "shop.add", {"args": [1], "tags": [tag]})["id"])
    body = {"filter": {"tag": tag, "task": "shop.fail"}}
    dry = http.post("/api/v1/jobs/retry", json=body | {"dry_run": True})
    assert (dry.status_code, dry.json()["matched"], dry.json()["dry_run"]) == (200, 3, True)
    assert [job["id"] for job in dry.json()["jobs"]] == jobs

    # Without the tag, for it fails as soon as it likes, and would be found too.
    part = http.post("/api/v1/jobs/retry", json=body | {"limit": 1, "tags": []})
    assert (part.status_code, part.json()["matched"], len(part.json()["jobs"])) == (202, 3, 1)
    rest = http.post("/api/v1/jobs/retry", json=body | {"rate": 0.01, "args": ["once more"], "tags": []}).json()
    assert (rest["matched"], rest["dry_run"], rest["skipped"]) == (2, False, [])
    sent = [http.get(f"/api/v1/jobs/{job}").json() for job in rest["jobs"]]
    assert [(job["retry_of"], job["args"]) for job in sent] == [(jobs[1], ["once more"]), (jobs[2], ["once more"])]
    assert (sent[0]["eta"], sent[1]["state"]) == (None, "SCHEDULED")
    apart = datetime.fromisoformat(sent[1]["eta"]) - datetime.fromisoformat(sent[0]["created_at"])
    assert apart.total_seconds() == pytest.approx(100, abs=1)

    def listed(**query: Any) -> list[str]:
        answer = http.get("/api/v1/jobs", params={"tag": tag, "task": "shop.fail"} | query)
        return [job["id"] for job in answer.json()["jobs"]]

    assert set(listed(retried="true")) == set(jobs)
    assert set(listed(retried="false")).isdisjoint(jobs)


def test_what_cannot_be_sent_again_is_skipped_with_its_reason(http: httpx.Client, tag: str) -> None:
    (job,) = failed(http, tag, "a")
    answer = http.post("/api/v1/jobs/retry", json={"filter": {"tag": tag}, "args": [1]}).json()
    assert (answer["matched"], answer["jobs"]) == (1, [])
    (skipped,) = answer["skipped"]
    assert skipped["id"] == job
    assert "args.0" in skipped["error"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (None, [["filter"]]),
        ({}, [["filter"]]),
        ({"filter": None}, [["filter"]]),
        ({"filter": {"sate": "FAILURE"}}, [["filter", "sate"]]),
        ({"filter": {"state": "DONE"}}, [["filter", "state"]]),
        ({"filter": {"state": "STARTED"}}, [["state"]]),
        ({"filter": {"since": 5}}, [["filter", "since"]]),
        ({"filter": {"until": "2027-01-01T00:00:00"}}, [["filter", "until"]]),
        ({"filter": {}, "rate": 0, "dry_run": True}, [["rate"]]),
        ({"filter": {}, "limit": 10_001, "dry_run": True}, [["limit"]]),
        ({"filter": {}, "priority": 10, "dry_run": True}, [["priority"]]),
    ],
)
def test_each_wrong_field_of_a_filter_is_named(http: httpx.Client, body: Any, where: Any) -> None:
    assert wrong(http.post("/api/v1/jobs/retry", json=body)) == where


# Dead letters.


def test_dead_letters_are_grouped_and_a_group_is_sent_again(http: httpx.Client, tag: str) -> None:
    name = f"shop.later.{tag}"
    jobs = [submitted(http, name, {"args": [n], "tags": [tag]}, force="true")["id"] for n in range(2)]
    jobs.append(submitted(http, "shop.add", {"args": [1], "expires": 0, "tags": [tag]})["id"])
    assert [ended(http, job)["reason"] for job in jobs] == ["unregistered", "unregistered", "expired"]
    groups = http.get("/api/v1/dead", params={"task": name}).json()["groups"]
    (group,) = groups
    assert (group["count"], group["reason"], group["latest"]["id"]) == (2, "unregistered", jobs[1])
    assert group["first_at"] <= group["last_at"]
    assert http.get("/api/v1/dead", params={"task": name, "reason": "lost"}).json() == {"groups": []}
    dead = http.get("/api/v1/jobs", params={"tag": tag, "dead": "true", "reason": "unregistered"}).json()["jobs"]
    assert {job["id"] for job in dead} == set(jobs[:2])
    assert {job["fingerprint"] for job in dead} == {group["fingerprint"]}

    path = f"/api/v1/dead/{group['fingerprint']}/retry"
    dry = http.post(path, json={"task": name, "dry_run": True})
    assert (dry.status_code, dry.json()["matched"]) == (200, 2)
    sent = http.post(path, json={"task": name, "queue": "no-worker-here"})
    assert (sent.status_code, len(sent.json()["jobs"])) == (202, 2)
    assert http.get("/api/v1/dead", params={"task": name}).json() == {"groups": []}
    again = http.post(path, json={"task": name})
    assert (again.status_code, again.json()["matched"]) == (202, 0)


def test_a_group_that_there_is_not_is_unknown(http: httpx.Client) -> None:
    for fingerprint in ("nothing", "%00", "%FF", "x" * 1000):
        problem(http.post(f"/api/v1/dead/{fingerprint}/retry"), 404, "unknown-group")
    assert wrong(http.get("/api/v1/dead?sate=x")) == [["sate"]]
    assert wrong(http.get("/api/v1/dead?reason=x")) == [["reason"]]
    assert wrong(http.post("/api/v1/dead/nothing/retry", json={"filter": {}})) == [["filter"]]


def test_a_method_that_a_path_does_not_take_is_told_all_that_it_takes(http: httpx.Client) -> None:
    assert http.put("/api/v1/jobs").headers["allow"] == "GET, POST"
    assert http.get("/api/v1/dead/x/retry").headers["allow"] == "POST"
