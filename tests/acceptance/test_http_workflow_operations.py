"""Cancelling workflows over HTTP, running them again, signalling their nodes, with real workers."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.http import problem, wrong
from tests.acceptance.site import until
from tests.acceptance.workflows import WAITING, WORKFLOWS, accepted, jobs_of, nodes_of, over, task

# Cancelling, running again.


def test_a_workflow_of_which_nothing_runs_is_cancelled_at_once(http: httpx.Client) -> None:
    workflow_id = accepted(http, {"chain": [task("add", 1), WAITING, task("echo")]})
    until(lambda: http.get(f"{WORKFLOWS}/{workflow_id}").json()["progress"]["done"] == 1, "the end of the first")
    for _ in range(2):
        cancelled = http.post(f"{WORKFLOWS}/{workflow_id}/cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "REVOKED")
    assert cancelled.json()["cancel_requested_at"]
    workflow = http.get(f"{WORKFLOWS}/{workflow_id}").json()
    assert workflow["counts"] == {"SUCCESS": 1, "REVOKED": 2}


def test_a_workflow_of_which_something_runs_is_cancelled_when_that_has_ended(
    http: httpx.Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    workflow_id = accepted(http, {"chain": [task("hold", str(gate)), task("echo")]})
    until(lambda: http.get(f"{WORKFLOWS}/{workflow_id}").json()["counts"].get("STARTED"), "the first to run")
    cancelled = http.post(f"{WORKFLOWS}/{workflow_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "STARTED")
    assert cancelled.json()["cancel_requested_at"]
    gate.touch()
    assert over(http, workflow_id)["state"] == "REVOKED"


def test_a_workflow_that_has_ended_cannot_be_cancelled(http: httpx.Client) -> None:
    workflow_id = over(http, accepted(http, task("add", 1)))["id"]
    found = problem(http.post(f"{WORKFLOWS}/{workflow_id}/cancel"), 409, "workflow-ended")
    assert (found["workflow"], found["state"]) == (workflow_id, "SUCCESS")


def test_a_workflow_is_run_again_from_what_failed_and_what_succeeded_is_kept(http: httpx.Client) -> None:
    workflow_id = accepted(http, {"nodes": {"good": task("add", 1), "bad": task("fail", "x")}})
    before = nodes_of(over(http, workflow_id))
    again = http.post(f"{WORKFLOWS}/{workflow_id}/retry")
    assert (again.status_code, again.json()["id"], again.json()["state"]) == (202, workflow_id, "STARTED")
    after = nodes_of(over(http, workflow_id))
    assert after["good"]["job"] == before["good"]["job"]
    assert after["bad"]["job"] != before["bad"]["job"]
    assert http.get(f"/api/v1/jobs/{before['bad']['job']}").json()["replaced_by"] == after["bad"]["job"]


def test_a_workflow_is_run_again_from_one_node_on(http: httpx.Client) -> None:
    workflow_id = accepted(http, {"chain": [task("add", n) for n in range(3)]})
    before = nodes_of(over(http, workflow_id))
    assert http.post(f"{WORKFLOWS}/{workflow_id}/retry", json={"node": "1"}).status_code == 202
    after = nodes_of(over(http, workflow_id))
    assert [after[name]["job"] == before[name]["job"] for name in ("0", "1", "2")] == [True, False, False]


def test_a_workflow_is_not_run_again_while_it_runs_nor_from_a_node_that_is_not_there(http: httpx.Client) -> None:
    waiting = accepted(http, WAITING)
    found = problem(http.post(f"{WORKFLOWS}/{waiting}/retry"), 409, "workflow-not-ended")
    assert (found["workflow"], found["state"]) == (waiting, "STARTED")
    http.post(f"{WORKFLOWS}/{waiting}/cancel")
    found = problem(http.post(f"{WORKFLOWS}/{waiting}/retry", json={"node": "nobody"}), 404, "unknown-node")
    assert (found["workflow"], found["node"]) == (waiting, "nobody")
    assert wrong(http.post(f"{WORKFLOWS}/{waiting}/retry", json={"nodes": "x"})) == [["nodes"]]
    assert wrong(http.post(f"{WORKFLOWS}/{waiting}/retry", json={"node": 5})) == [["node"]]
    assert wrong(http.post(f"{WORKFLOWS}/{waiting}/retry", json=[])) == [["body"]]


def test_a_node_is_sent_again_as_the_job_that_it_is_with_other_arguments(http: httpx.Client) -> None:
    nodes = {
        "text": task("echo", "text"),
        "sum": task("total", {"$result": "text"}),
        "end": task("echo", {"$result": "sum"}),
    }
    workflow_id = accepted(http, {"nodes": nodes, "result": {"$result": "end"}})
    failed = over(http, workflow_id)
    assert failed["state"] == "FAILURE"
    again = http.post(f"/api/v1/jobs/{nodes_of(failed)['sum']['job']}/retry", json={"args": [5]})
    assert (again.status_code, again.json()["node"], again.json()["workflow_id"]) == (202, "sum", workflow_id)
    assert over(http, workflow_id)["state"] == "SUCCESS"
    assert http.get(f"{WORKFLOWS}/{workflow_id}/result").json()["result"] == 5


def test_a_node_is_cancelled_as_the_job_that_it_is(http: httpx.Client) -> None:
    workflow_id = accepted(http, {"chain": [task("add", 1, delay=600), task("echo")]})
    assert http.post(f"/api/v1/jobs/{jobs_of(http, workflow_id)['0']}/cancel").status_code == 200
    nodes = nodes_of(over(http, workflow_id))
    assert [(nodes[name]["state"], nodes[name]["reason"]) for name in ("0", "1")] == [
        ("REVOKED", "revoked"),
        ("FAILURE", "upstream-failed"),
    ]


# Signals.


@pytest.mark.parametrize("payload", [{"by": ["é", 1.5, None]}, [], "", 0, False, None], ids=json.dumps)
def test_a_signal_ends_a_wait_with_what_it_brought(http: httpx.Client, payload: Any) -> None:
    workflow_id = accepted(http, {"nodes": {"ok": WAITING, "then": task("echo", {"$result": "ok"})}})
    signalled = http.post(f"{WORKFLOWS}/{workflow_id}/signals/ok", json=payload)
    assert (signalled.status_code, signalled.json()["node"]) == (200, "ok")
    over(http, workflow_id)
    assert http.get(f"{WORKFLOWS}/{workflow_id}/result").json()["result"] == {"then": payload}
    found = problem(http.post(f"{WORKFLOWS}/{workflow_id}/signals/ok", json=payload), 409, "job-ended")
    assert found["job"] == signalled.json()["id"]


def test_a_signal_without_a_body_brings_null_and_may_come_early(http: httpx.Client) -> None:
    workflow_id = accepted(http, {"chain": [task("sleep", 0.3), {"wait": {}, "name": "ok"}]})
    assert http.post(f"{WORKFLOWS}/{workflow_id}/signals/ok").status_code == 200
    over(http, workflow_id)
    assert http.get(f"{WORKFLOWS}/{workflow_id}/result").json()["result"] is None


def test_a_node_that_does_not_wait_takes_no_signal(http: httpx.Client) -> None:
    workflow_id = accepted(http, {"nodes": {"one": task("add", 1)}})
    problem(http.post(f"{WORKFLOWS}/{workflow_id}/signals/one"), 404, "unknown-node")
    problem(http.post(f"{WORKFLOWS}/{workflow_id}/signals/two"), 404, "unknown-node")
