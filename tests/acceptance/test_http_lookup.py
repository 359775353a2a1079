"""Looking up and listing over HTTP."""

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.http import NAMES, ended, problem, submitted, wrong
from tests.acceptance.site import until

# Looking up.


def test_a_result_is_answered_by_its_state(http: httpx.Client) -> None:
    done = submitted(http, "shop.add", {"x": 1})["id"]
    failed = submitted(http, "shop.fail", {"message": "x"})["id"]
    waiting = submitted(http, "shop.add", {"args": [1], "delay": 60})["id"]
    ended(http, done), ended(http, failed)
    answer = http.get(f"/api/v1/jobs/{done}/result")
    assert (answer.status_code, answer.json()["result"], answer.json()["state"]) == (200, 3, "SUCCESS")
    pending = http.get(f"/api/v1/jobs/{waiting}/result")
    assert (pending.status_code, pending.json()) == (202, {"id": waiting, "state": "SCHEDULED"})
    assert int(pending.headers["retry-after"]) >= 1
    assert problem(http.get(f"/api/v1/jobs/{failed}/result"), 500, "job-failed")["job"] == failed
    problem(http.get("/api/v1/jobs/nobody/result"), 404, "unknown-job")


IDS = [
    "nobody",
    "%00",
    "a%00b",
    "x" * 10_240,
    "..%2F..%2Fetc%2Fpasswd",
    "%F0%9F%98%80",
    "%FF",
    "%ED%A0%80",
    "%0A",
    "'--",
    "%25",
]


@pytest.mark.parametrize("job_id", IDS, ids=lambda given: given[:12])
def test_an_id_that_nobody_submitted_is_unknown_whatever_it_looks_like(http: httpx.Client, job_id: str) -> None:
    for path in (f"/api/v1/jobs/{job_id}", f"/api/v1/jobs/{job_id}/result"):
        response = http.get(path)
        assert response.status_code == 404, response.text
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", [i for i in IDS if "2F" not in i], ids=lambda given: given[:12])
def test_a_task_name_of_any_form_is_unknown_or_refused(http: httpx.Client, name: str) -> None:
    assert http.get(f"/api/v1/tasks/{name}").status_code in (404, 422)
    for query in ("", "?force=true"):
        response = http.post(f"/api/v1/tasks/{name}{query}", json={"queue": "nobody"})
        assert response.status_code in (202, 404, 422), response.text
        if response.status_code == 202:
            assert http.get(response.headers["location"]).status_code == 200


def test_jobs_are_listed_by_filter_and_followed_by_cursor(http: httpx.Client) -> None:
    tag = f"list-{time.monotonic_ns()}"
    jobs = [submitted(http, "shop.add", {"args": [n], "tags": [tag]})["id"] for n in range(5)]
    other = submitted(http, "shop.echo", {"args": ["needle 100%_"], "tags": [tag], "queue": "stock"})["id"]
    for each in jobs:
        ended(http, each)

    def listed(**query: Any) -> list[str]:
        response = http.get("/api/v1/jobs", params={"tag": tag} | query)
        assert response.status_code == 200, response.text
        return [job["id"] for job in response.json()["jobs"]]

    assert listed() == [other, *reversed(jobs)]
    assert listed(task="shop.echo") == listed(queue="stock") == listed(text="100%_") == [other]
    assert listed(task="shop.add", state="SUCCESS", worker="ours@here") == jobs[::-1]
    assert listed(state="FAILURE") == []
    moment = http.get(f"/api/v1/jobs/{jobs[2]}").json()["created_at"]
    assert listed(since=moment) == [other, *jobs[:1:-1]]
    assert listed(until=moment) == jobs[1::-1]

    found, path = [], f"/api/v1/jobs?tag={tag}&limit=4"
    for _ in range(2):
        response = http.get(path)
        found += [job["id"] for job in response.json()["jobs"]]
        link = response.headers.get("link")
        if link:
            following = re.fullmatch(r'<(.+)>; rel="next"', link)
            assert following is not None
            path = following[1]
            assert f"cursor={response.json()['next']}" in path
    assert found == [other, *reversed(jobs)]
    assert link is None


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("state=DONE", "state"),
        ("state=success", "state"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("cursor=nonsense", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=" + "A" * 65, "cursor"),
        ("cursor=%FF%00", "cursor"),
        ("since=yesterday", "since"),
        ("since=2027-01-01T00:00:00", "since"),
        ("until=99999-01-01T00:00:00Z", "until"),
        ("text=", "text"),
        ("text=%00", "text"),
        ("tag=a%00", "tag"),
        ("worker=" + "x" * 256, "worker"),
    ],
)
def test_each_wrong_filter_is_named(http: httpx.Client, query: str, where: str) -> None:
    assert where in [place[0] for place in wrong(http.get(f"/api/v1/jobs?{query}"))]


def test_a_filter_that_does_not_exist_is_refused(http: httpx.Client) -> None:
    """Passed over, a misspelt filter would list everything."""
    assert wrong(http.get("/api/v1/jobs?sate=FAILURE")) == [["sate"]]


@pytest.mark.parametrize(
    "query", ["since=0001-01-01T00:00:00Z", "until=9999-12-31T23:59:59Z", "text=%FF", "text=%25", "tag=%F0%9F%98%80"]
)
def test_a_filter_of_any_form_is_answered(http: httpx.Client, query: str) -> None:
    assert http.get(f"/api/v1/jobs?{query}").status_code in (200, 422)


def test_tasks_are_listed_with_their_schemas(http: httpx.Client) -> None:
    found = {task["name"]: task for task in http.get("/api/v1/tasks").json()["tasks"]}
    assert set(NAMES) <= set(found)
    assert found["shop.add"]["doc"] == "Add two numbers."
    assert found["shop.add"]["arguments"]["properties"]["x"] == {"type": "integer"}
    assert http.get("/api/v1/tasks/shop.add").json() == found["shop.add"]


def test_queues_are_listed_with_their_depth(http: httpx.Client) -> None:
    found = {queue["name"]: queue for queue in http.get("/api/v1/queues").json()["queues"]}
    assert found["celery"]["exists"]
    assert found["celery"]["consumers"] >= 1


def test_workers_are_listed_with_what_they_run_now(http: httpx.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = submitted(http, "shop.hold", {"path": str(gate)})["id"]

    def running() -> Any:
        found = {worker["hostname"]: worker for worker in http.get("/api/v1/workers").json()["workers"]}
        ours = found["ours@here"]
        return ours if [each for each in ours["running"] if each["id"] == job] else None

    ours = until(running, "the running job")
    (run,) = [each for each in ours["running"] if each["id"] == job]
    assert (run["task"], ours["online"], ours["queues"]) == ("shop.hold", True, ["celery"])
    assert datetime.fromisoformat(run["started_at"])
    gate.touch()
    assert ended(http, job)["state"] == "SUCCESS"
    assert job not in str(http.get("/api/v1/workers").json())
