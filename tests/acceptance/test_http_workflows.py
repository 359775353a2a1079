"""Submitting workflows over HTTP and looking them up, with real workers."""

import json
import re
import time
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from tests.acceptance.http import WAIT, problem, submitted, wrong
from tests.acceptance.workflows import WAITING, WORKFLOWS, accepted, jobs_of, nodes_of, over, task

# Submitting.


def test_a_workflow_is_accepted_with_its_place(http: httpx.Client) -> None:
    response = http.post(WORKFLOWS, json={"chain": [task("add", 1, 2), task("add", 10)], "name": "sums"})
    workflow = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"{WORKFLOWS}/{workflow['id']}"
    assert response.headers["retry-after"] == "1"
    assert (workflow["name"], workflow["state"], workflow["origin"]) == ("sums", "STARTED", "dure")
    assert workflow["finished_at"] is None
    found = http.get(response.headers["location"]).json()
    assert {name: found[name] for name in ("id", "name", "created_at")} == {
        name: workflow[name] for name in ("id", "name", "created_at")
    }
    assert over(http, workflow["id"])["state"] == "SUCCESS"


@pytest.mark.parametrize(
    ("spec", "result"),
    [
        (task("add", 1, 2), 3),
        ({"chain": [task("add", 1, 2), task("add", 10), task("echo")]}, 13),
        ({"group": [task("add", n, n) for n in range(4)]}, [0, 2, 4, 6]),
        ({"group": []}, []),
        ({"chord": {"header": [task("add", 1), task("add", 2)], "body": task("echo")}}, [3, 4]),
        ({"chain": [task("echo", [1, 2, 3]), {"map": task("add", 10)}, task("echo")]}, [11, 12, 13]),
        ({"map": {"over": [1, 2], "do": {"chain": [task("add", 1), task("add", 1)]}}}, [3, 4]),
        (
            {
                "nodes": {
                    "left": task("add", 1, 2),
                    "right": task("echo", {"deep": [{"x": 7}]}),
                    "both": task("add", {"$result": "left"}, {"$result": "right", "path": ["deep", 0, "x"]}),
                },
                "result": {"sum": {"$result": "both"}, "as it is": {"$literal": {"$result": "left"}}},
            },
            {"sum": 10, "as it is": {"$result": "left"}},
        ),
        ({"nodes": {"a": task("add", 1), "b": task("add", 2)}}, {"a": 3, "b": 4}),
        ({"group": [task("fail", "x", on_failure="continue"), task("add", 1)]}, [None, 3]),
        ({"chain": [task("add", 1), task("echo", 5, immutable=True)]}, 5),
    ],
    ids=json.dumps,
)
def test_each_form_runs_and_a_wait_answers_with_its_result(http: httpx.Client, spec: Any, result: Any) -> None:
    response = http.post(WORKFLOWS, json=spec, headers=WAIT)
    assert response.status_code == 200, response.text
    assert response.headers["preference-applied"] == "wait=20"
    assert (response.json()["state"], response.json()["result"]) == ("SUCCESS", result)
    looked_up = http.get(f"{WORKFLOWS}/{response.json()['id']}/result")
    assert (looked_up.status_code, looked_up.json()["result"]) == (200, result)


def test_a_wait_answers_with_the_failure_or_not_yet(http: httpx.Client) -> None:
    failed = http.post(WORKFLOWS, json={"chain": [task("fail", "no é"), task("echo")]}, headers=WAIT)
    found = problem(failed, 500, "workflow-failed")
    assert (found["state"], found["reason"], found["node"]) == ("FAILURE", "error", "0")
    assert (found["error"]["type"].rpartition(".")[2], found["error"]["message"]) == ("ValueError", "no é")
    assert found["job"] == jobs_of(http, found["workflow"])["0"]

    slow = http.post(WORKFLOWS, json=WAITING, headers={"Prefer": "respond-async, wait=0"})
    assert (slow.status_code, slow.json()["state"]) == (202, "STARTED")
    assert slow.headers["location"].endswith(slow.json()["id"])
    assert http.post(f"{slow.headers['location']}/cancel").status_code == 200


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        (None, ["body"]),
        ([], ["body"]),
        ("text", ["body"]),
        ({}, ["body"]),
        ({"task": 5}, ["task"]),
        (task("add", 1, typo=1), ["typo"]),
        (task("add", 1, priority=11), ["priority"]),
        (task("add", "one"), ["args", 0]),
        ({"chain": []}, ["chain"]),
        ({"chain": [task("add", 1, 2), {"task": "shop.add", "args": [1, 2]}]}, ["chain", 1, "args", 1]),
        ({"chain": [task("add", 1), 7]}, ["chain", 1]),
        ({"group": [task("add", 1), {"group": [task("add", {})]}]}, ["group", 1, "group", 0, "args", 0]),
        ({"nodes": {"a": task("add", {"$result": "b"})}}, ["nodes", "a", "args", 0]),
        ({"nodes": {"a": task("add", 1, needs=["b"])}}, ["nodes", "a", "needs", 0]),
        ({"nodes": {"a b": task("add", 1)}}, ["nodes", "a b"]),
        (task("add", 1, name="x" * 101), ["name"]),
        ({"chain": [task("add", 1)], "timeout": 0}, ["timeout"]),
        ({"wait": {"timeout": "long"}}, ["wait", "timeout"]),
        ({"map": {"over": [1], "do": {"task": "shop.ad"}}}, ["map", "do", "task"]),
    ],
    ids=json.dumps,
)
def test_each_wrong_place_of_a_workflow_is_named(http: httpx.Client, spec: Any, where: list[str | int]) -> None:
    found = wrong(http.post(WORKFLOWS, json=spec))
    assert [place[: len(where)] for place in found] == [where] * len(found)


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_submitted(http: httpx.Client) -> None:
    tag = f"atomic-{time.monotonic_ns()}"
    members = [task("add", 1, tags=[tag]), task("add", "one"), {"task": "shop.ad"}]
    response = http.post(WORKFLOWS, json={"group": members})
    assert sorted(wrong(response), key=str) == [["group", 1, "args", 0], ["group", 2, "task"]]
    assert "shop.add" in response.text
    assert http.get("/api/v1/jobs", params={"tag": tag}).json()["jobs"] == []


def test_a_cycle_is_refused(http: httpx.Client) -> None:
    circle = {"nodes": {"a": task("add", {"$result": "b"}), "b": task("add", {"$result": "a"})}}
    assert wrong(http.post(WORKFLOWS, json=circle))[0][0] == "nodes"


def test_a_result_that_cannot_fit_the_argument_it_feeds_is_refused(http: httpx.Client) -> None:
    nodes = {"text": task("sleep", 0), "sum": task("add", {"$result": "text"})}
    assert wrong(http.post(WORKFLOWS, json={"nodes": nodes})) == [["nodes", "sum", "args", 0]]


def test_force_submits_by_name_what_nobody_has_announced(http: httpx.Client) -> None:
    spec = {"chain": [{"task": "later.task", "queue": "nobody"}, {"task": "later.still"}]}
    assert wrong(http.post(WORKFLOWS, json=spec)) == [["chain", 0, "task"], ["chain", 1, "task"]]
    assert wrong(http.post(f"{WORKFLOWS}?force=maybe", json=spec)) == [["force"]]
    workflow_id = accepted(http, spec, force="true")
    assert http.post(f"{WORKFLOWS}/{workflow_id}/cancel").status_code == 200


@pytest.mark.parametrize(
    ("content", "kind", "status", "type_"),
    [
        (b"{", "application/json", 400, "malformed-json"),
        (b'{"chain":' * 70 + b"1" + b"}" * 70, "application/json", 400, "too-deep"),
        (b'"' + b"x" * 1_100_000 + b'"', "application/json", 413, "too-large"),
        (b"{}", "text/plain", 415, "not-json"),
    ],
    ids=["malformed", "deep", "large", "text"],
)
@pytest.mark.parametrize("path", ["", "/nobody/retry", "/nobody/signals/x"])
def test_a_body_has_the_limits_of_all_bodies(
    http: httpx.Client, path: str, content: bytes, kind: str, status: int, type_: str
) -> None:
    problem(http.post(WORKFLOWS + path, content=content, headers={"Content-Type": kind}), status, type_)


def test_a_request_that_is_repeated_with_its_key_makes_nothing_and_is_answered_alike(http: httpx.Client) -> None:
    key = {"Idempotency-Key": f"flow-{time.monotonic_ns()}"}
    spec = {"chain": [task("add", 1), task("add", 2)]}
    first = http.post(WORKFLOWS, json=spec, headers=key)
    assert "idempotent-replayed" not in first.headers
    over(http, first.json()["id"])
    again = http.post(WORKFLOWS, json=spec, headers=key)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]

    waited = http.post(WORKFLOWS, json=spec, headers=key | WAIT)
    assert (waited.status_code, waited.json()["id"], waited.json()["result"]) == (200, first.json()["id"], 5)
    assert waited.headers["idempotent-replayed"] == "true"

    other = http.post(WORKFLOWS, json={"chain": [task("add", 1), task("add", 3)]}, headers=key)
    problem(other, 422, "idempotency-conflict")
    problem(http.post("/api/v1/tasks/shop.add", json={"x": 1}, headers=key), 422, "idempotency-conflict")


def test_the_key_of_a_job_is_none_of_a_workflow(http: httpx.Client) -> None:
    key = {"Idempotency-Key": f"job-{time.monotonic_ns()}"}
    assert http.post("/api/v1/tasks/shop.add", json={"x": 1}, headers=key).status_code == 202
    problem(http.post(WORKFLOWS, json=task("add", 1), headers=key), 422, "idempotency-conflict")
    bad = http.post(WORKFLOWS, json=task("add", 1), headers={"Idempotency-Key": "x" * 256})
    assert wrong(bad) == [["Idempotency-Key"]]


# Looking up.


def test_a_workflow_is_shown_with_its_nodes_and_what_they_need(http: httpx.Client) -> None:
    spec = {
        "nodes": {
            "first": task("add", 1, 2),
            "failed": task("fail", "x"),
            "after": task("add", {"$result": "first"}),
            "never": task("echo", {"$result": "failed"}),
            "repair": task("echo", {"$error": "failed", "path": ["message"]}),
        }
    }
    workflow = over(http, accepted(http, spec))
    nodes = nodes_of(workflow)
    assert list(nodes) == list(spec["nodes"])
    assert (workflow["state"], workflow["reason"]) == ("FAILURE", "error")
    assert workflow["counts"] == {"SUCCESS": 3, "FAILURE": 2}
    assert workflow["progress"] == {"done": 5, "total": 5}
    assert nodes["after"]["needs"] == [{"node": "first", "on": "success"}]
    assert nodes["repair"]["needs"] == [{"node": "failed", "on": "failure"}]
    assert nodes["first"]["needs"] == []
    assert (nodes["first"]["kind"], nodes["first"]["task"], nodes["first"]["attempts"]) == ("task", "shop.add", 1)
    assert nodes["never"]["reason"] == "upstream-failed"
    assert nodes["failed"]["error"]["message"] == "x"
    assert set(nodes["failed"]["error"]) == {"type", "message"}
    assert nodes["first"]["error"] is None
    assert nodes["first"]["started_at"] <= nodes["first"]["finished_at"] <= nodes["after"]["finished_at"]
    assert set(workflow["critical_path"]["nodes"]) <= set(nodes)
    assert workflow["critical_path"]["seconds"] >= 0

    short = http.get(f"{WORKFLOWS}/{workflow['id']}", params={"nodes": "false"}).json()
    assert short == {name: value for name, value in workflow.items() if name not in ("nodes", "critical_path")}
    assert wrong(http.get(f"{WORKFLOWS}/{workflow['id']}?nodes=x")) == [["nodes"]]


def test_a_map_shows_the_nodes_that_it_made(http: httpx.Client) -> None:
    workflow = over(http, accepted(http, {"chain": [task("echo", [1, 2]), {"map": task("add"), "name": "all"}]}))
    assert [node["state"] for node in workflow["nodes"]] == ["SUCCESS"] * 4
    assert {"all.0", "all.1"} <= set(nodes_of(workflow))


def test_a_result_is_answered_by_the_state(http: httpx.Client) -> None:
    waiting = accepted(http, {"chain": [WAITING, task("echo")]})
    failed = over(http, accepted(http, {"group": [task("add", 1), task("fail", "x")]}))["id"]
    pending = http.get(f"{WORKFLOWS}/{waiting}/result")
    assert (pending.status_code, pending.json()) == (202, {"id": waiting, "state": "STARTED"})
    assert pending.headers["retry-after"] == "1"
    found = problem(http.get(f"{WORKFLOWS}/{failed}/result"), 500, "workflow-failed")
    assert (found["workflow"], found["node"], found["error"]["message"]) == (failed, "1", "x")
    problem(http.get(f"{WORKFLOWS}/nobody/result"), 404, "unknown-workflow")
    http.post(f"{WORKFLOWS}/{waiting}/cancel")
    cancelled = problem(http.get(f"{WORKFLOWS}/{waiting}/result"), 500, "workflow-failed")
    assert (cancelled["state"], cancelled["reason"]) == ("REVOKED", "revoked")


def test_a_workflow_whose_time_is_over_ends(http: httpx.Client) -> None:
    workflow = over(http, accepted(http, {"chain": [WAITING, task("echo")], "timeout": 0.2}))
    assert (workflow["state"], workflow["reason"], workflow["timeout"]) == ("FAILURE", "time-limit", 0.2)
    assert workflow["deadline"] > workflow["created_at"]
    problem(http.get(f"{WORKFLOWS}/{workflow['id']}/result"), 500, "workflow-failed")


IDS = ["nobody", "%00", "a%00b", "x" * 10_240, "%F0%9F%98%80", "%FF", "%0A", "'--", "%25"]


@pytest.mark.parametrize("workflow_id", IDS, ids=lambda given: given[:12])
def test_an_id_that_nobody_submitted_is_unknown_whatever_it_looks_like(http: httpx.Client, workflow_id: str) -> None:
    for path in ("", "?nodes=false", "/result"):
        problem(http.get(f"{WORKFLOWS}/{workflow_id}{path}"), 404, "unknown-workflow")
    for path in ("/cancel", "/retry", "/signals/x"):
        problem(http.post(f"{WORKFLOWS}/{workflow_id}{path}"), 404, "unknown-workflow")


@pytest.mark.parametrize("name", IDS, ids=lambda given: given[:12])
def test_a_node_of_any_form_that_is_not_there_is_unknown(http: httpx.Client, name: str) -> None:
    waiting = accepted(http, WAITING)
    problem(http.post(f"{WORKFLOWS}/{waiting}/signals/{name}"), 404, "unknown-node")
    http.post(f"{WORKFLOWS}/{waiting}/cancel")
    problem(http.post(f"{WORKFLOWS}/{waiting}/retry", json={"node": unquote(name)[:1000]}), 404, "unknown-node")


def test_workflows_are_listed_by_state_and_followed_by_cursor(http: httpx.Client) -> None:
    made = [accepted(http, WAITING) for _ in range(3)]
    listed = http.get(WORKFLOWS, params={"state": "STARTED", "limit": 2})
    assert [workflow["id"] for workflow in listed.json()["workflows"]] == [made[2], made[1]]
    following = re.fullmatch(r'<(.+)>; rel="next"', listed.headers["link"])
    assert following is not None
    assert f"cursor={listed.json()['next']}" in following[1]
    rest = http.get(following[1]).json()["workflows"]
    assert rest[0]["id"] == made[0]
    for workflow_id in made:
        http.post(f"{WORKFLOWS}/{workflow_id}/cancel")
    running = http.get(WORKFLOWS, params={"state": "STARTED"}).json()
    assert running["next"] is None
    assert not {workflow["id"] for workflow in running["workflows"]} & set(made)
    assert http.get(WORKFLOWS, params={"state": "REVOKED", "limit": 1}).json()["workflows"][0]["id"] == made[2]


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("state=DONE", "state"),
        ("state=WAITING", "state"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("cursor=nonsense", "cursor"),
        ("sate=FAILURE", "sate"),
    ],
)
def test_each_wrong_parameter_of_the_list_is_named(http: httpx.Client, query: str, where: str) -> None:
    assert where in [place[0] for place in wrong(http.get(f"{WORKFLOWS}?{query}"))]


def test_a_node_is_a_job_that_names_its_workflow(http: httpx.Client) -> None:
    workflow_id = accepted(http, {"nodes": {"one": task("add", 1), "two": task("add", {"$result": "one"})}})
    over(http, workflow_id)
    listed = http.get("/api/v1/jobs", params={"workflow": workflow_id}).json()["jobs"]
    assert [(job["node"], job["workflow_id"]) for job in listed] == [("two", workflow_id), ("one", workflow_id)]
    assert listed[0]["args"] == [3]
    alone = submitted(http, "shop.add", {"x": 1})
    assert (alone["workflow_id"], alone["node"]) == (None, None)


def test_a_path_that_does_not_take_the_method_says_which_it_takes(http: httpx.Client) -> None:
    assert http.delete(WORKFLOWS).headers["allow"] == "GET, POST"
    assert http.get(f"{WORKFLOWS}/nobody/cancel").headers["allow"] == "POST"


# The document.


def test_the_document_describes_every_form_with_an_example(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    body = document["paths"][WORKFLOWS]["post"]["requestBody"]
    shown = body["content"]["application/json"]
    forms = {"task", "nodes", "chain", "group", "chord", "map", "wait"}
    assert body["required"]
    assert set(shown["examples"]) == forms
    models = [document["components"]["schemas"][ref["$ref"].rpartition("/")[2]] for ref in shown["schema"]["oneOf"]]
    assert {model["required"][0] for model in models} == forms
    for model in models:
        assert model["description"]
        assert all("description" in field for field in model["properties"].values()), model["title"]
