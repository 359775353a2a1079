"""The quickstart as `make up` runs it, with short tasks: every route, as a user would call it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.cli_stack import Up, free_port, until

APP = "examples.quickstart.tasks:app"
SHORT = {"QUICKSTART_ADD_SECONDS": "0.3", "QUICKSTART_MULTI_SECONDS": "0.1", "QUICKSTART_SUM_SECONDS": "0.1"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home: Path = tmp_path_factory.mktemp("quickstart")
    port = free_port()
    beside = f"uvicorn examples.quickstart.api:app --port {port}"
    with (
        Up(home, "-A", APP, "-Q", "celery,sum-queue", "--with", beside, environment=SHORT) as up,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        up.tells("Uvicorn running")
        yield client


def ended(api: httpx.Client, task_id: str) -> httpx.Response:
    until(lambda: api.get(f"/result/{task_id}").status_code != 202)
    return api.get(f"/result/{task_id}")


def test_the_status_is_told(api: httpx.Client) -> None:
    assert api.get("/").json()["status"] == "ok"


def test_adding_answers_at_once_and_its_result_follows(api: httpx.Client) -> None:
    submitted = api.get("/solo/add").json()
    assert set(submitted) == {"message", "task_id"}
    assert api.get(f"/result/{submitted['task_id']}").status_code == 202
    answer = ended(api, submitted["task_id"])
    numbers = [int(word) for word in submitted["message"].split() if word.isdigit()]
    assert answer.status_code == 200
    assert answer.json()["result"] == sum(numbers)


def test_a_task_published_by_name_runs_on_its_own_queue(api: httpx.Client) -> None:
    task_id = api.get("/publish").json()["task_id"]
    answer = ended(api, task_id)
    result = answer.json()["result"]
    assert answer.status_code == 200
    assert len(result["multiplied"]) == 3
    assert sum(result["multiplied"]) == result["sum"] ** 2
    assert api.get(f"/dure/api/v1/jobs/{task_id}").json()["queue"] == "sum-queue"


def test_running_waits_for_the_result(api: httpx.Client) -> None:
    answer = api.get("/run")
    assert answer.status_code == 200
    assert answer.json()["state"] == "SUCCESS"
    assert answer.json()["result"] >= 1


def test_an_id_that_nobody_submitted_is_not_found(api: httpx.Client) -> None:
    assert api.get("/result/nobody").status_code == 404


def test_a_task_that_fails_is_a_500_with_its_error(api: httpx.Client) -> None:
    body = {"args": [["a"]], "force": True}
    name = "examples.quickstart.tasks.sum_multiply_task"
    refused = api.post(f"/dure/api/v1/tasks/{name}", json=body)
    assert refused.status_code == 422
    expired = api.post(f"/dure/api/v1/tasks/{name}", json={"args": [[1]], "queue": "sum-queue", "expires": 0})
    answer = ended(api, expired.json()["id"])
    assert answer.status_code == 500
    assert answer.json()["error"] == "expired"
