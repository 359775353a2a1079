"""The quickstart as `make up` runs it, with short tasks: every route, as a user would call it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.acceptance.cli_stack import Up, until
from tests.services.service import free_port

# The application as it is; but while the file `gate` is there, none of its tasks comes to its end.
GATED = """
import time
from pathlib import Path
from types import SimpleNamespace

from examples.quickstart import tasks

GATE = Path(__file__).with_name("gate")

def sleep(seconds):
    time.sleep(seconds)
    while GATE.exists():
        time.sleep(0.01)

tasks.time = SimpleNamespace(sleep=sleep)
app = tasks.app
"""
SHORT = {"QUICKSTART_ADD_SECONDS": "0.3", "QUICKSTART_MULTI_SECONDS": "0.1", "QUICKSTART_SUM_SECONDS": "0.1"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("quickstart")
    (folder / "gated.py").write_text(GATED)
    return folder


@pytest.fixture(scope="module")
def api(home: Path) -> Iterator[httpx.Client]:
    port = free_port()
    path = os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = SHORT | {"PYTHONPATH": path}
    beside = f"uvicorn examples.quickstart.api:app --port {port}"
    with (
        Up(home, "-A", "gated:app", "-Q", "celery,sum-queue", "--with", beside, environment=environment) as up,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        up.tells("Uvicorn running")
        yield client


@contextmanager
def gated(home: Path) -> Iterator[None]:
    """What is submitted meanwhile has no result yet, however long it takes to ask."""
    gate = home / "gate"
    gate.touch()
    try:
        yield
    finally:
        gate.unlink()


def ended(api: httpx.Client, task_id: str) -> httpx.Response:
    until(lambda: api.get(f"/result/{task_id}").status_code != 202)
    return api.get(f"/result/{task_id}")


def _numbers(message: str) -> list[int]:
    return [int(word) for word in re.findall(r"\d+", message)]


def test_the_status_is_told(api: httpx.Client) -> None:
    assert api.get("/").json()["status"] == "ok"


def test_adding_answers_at_once_and_its_result_follows(api: httpx.Client, home: Path) -> None:
    with gated(home):
        submitted = api.get("/solo/add").json()
        assert set(submitted) == {"message", "task_id"}
        assert api.get(f"/result/{submitted['task_id']}").status_code == 202
    answer = ended(api, submitted["task_id"])
    assert answer.status_code == 200
    assert answer.json()["result"] == sum(_numbers(submitted["message"]))


def test_a_task_published_by_name_runs_on_its_own_queue(api: httpx.Client) -> None:
    task_id = api.get("/publish").json()["task_id"]
    answer = ended(api, task_id)
    result = answer.json()["result"]
    assert answer.status_code == 200
    assert len(result["multiplied"]) == 3
    assert sum(result["multiplied"]) == result["sum"] ** 2
    assert api.get(f"/dure/api/v1/jobs/{task_id}").json()["queue"] == "sum-queue"


def test_a_chain_adds_and_then_multiplies_the_sum_on_another_queue(api: httpx.Client, home: Path) -> None:
    with gated(home):
        submitted = api.get("/solo/chain").json()
        assert set(submitted) == {"message", "task_id", "status_code"}
        assert submitted["status_code"] == 200
        assert api.get(f"/result/{submitted['task_id']}").status_code == 202
    answer = ended(api, submitted["task_id"])
    total = sum(_numbers(submitted["message"]))
    assert answer.status_code == 200
    assert answer.json()["result"] == {"sum": total, "multiplied": [total**2]}
    assert api.get(f"/dure/api/v1/jobs/{submitted['task_id']}").json()["queue"] == "sum-queue"


def test_a_group_adds_and_multiplies_side_by_side(api: httpx.Client, home: Path) -> None:
    with gated(home):
        submitted = api.get("/solo/group").json()
        assert set(submitted) == {"message", "group_id", "individual_tasks", "check_result_url"}
        assert submitted["check_result_url"] == f"/result/group/{submitted['group_id']}"
        early = api.get(submitted["check_result_url"])
    assert early.status_code == 202
    assert early.json()["total"] == 2
    assert early.json()["completed"] < 2
    until(lambda: api.get(submitted["check_result_url"]).status_code != 202)
    answer = api.get(submitted["check_result_url"])
    x, y = _numbers(submitted["message"])
    assert answer.status_code == 200
    assert answer.json()["results"] == [x + y, x * y]
    assert [ended(api, task).json()["result"] for task in submitted["individual_tasks"]] == [x + y, x * y]


def test_a_group_that_nobody_submitted_is_not_found(api: httpx.Client) -> None:
    assert api.get("/result/group/nobody").status_code == 404


def test_a_group_of_which_a_task_fails_is_a_500_that_names_it(api: httpx.Client) -> None:
    add = "examples.quickstart.tasks.multi_task"
    members = [{"task": add, "args": [2, 3]}, {"task": add, "args": [2, 3], "expires": 0}]
    group_id = api.post("/dure/api/v1/workflows", json={"group": members}).json()["id"]
    until(lambda: api.get(f"/result/group/{group_id}").status_code != 202)
    answer = api.get(f"/result/group/{group_id}")
    assert answer.status_code == 500
    assert "'1'" in answer.json()["error"]


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
