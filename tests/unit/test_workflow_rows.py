from typing import Any

from dure.job import State
from dure.workflow import Edge, Kind, NewNode, On
from dure.workflows.compile import compile_spec, expand
from dure.workflows.rows import rows_of
from dure.workflows.spec import read_spec

NOW = 100.0


def rows(spec: Any) -> tuple[dict[str, NewNode], list[Edge], dict[str, str]]:
    steps = compile_spec(read_spec(spec)).steps
    nodes, edges, ids = rows_of(steps, "w", NOW, queue_of=lambda task: f"queue of {task}")
    return {node.job.node or "": node for node in nodes}, edges, ids


def test_what_needs_nothing_is_ready_and_what_needs_something_waits() -> None:
    nodes, edges, ids = rows({"chain": [{"task": "a", "args": [1]}, {"task": "b", "queue": "q"}]})
    first, second = nodes["0"], nodes["1"]
    assert (first.job.state, first.due_at, first.unmet) == (State.ACCEPTED, 0.0, 0)
    assert (second.job.state, second.due_at, second.unmet) == (State.WAITING, None, 1)
    assert (first.job.queue, second.job.queue) == ("queue of a", "q")
    assert edges == [Edge(job_id=ids["1"], name="0", needs=ids["0"], on=On.SUCCESS)]
    assert {node.job.workflow_id for node in nodes.values()} == {"w"}


def test_only_arguments_with_references_are_kept_as_templates() -> None:
    nodes, _, _ = rows({"chain": [{"task": "a", "args": [{"$literal": {"$result": "x"}}]}, {"task": "b"}]})
    assert (nodes["0"].job.args, nodes["0"].plan.args) == ([{"$result": "x"}], None)
    assert nodes["1"].plan.args == nodes["1"].job.args == [{"$result": "0"}]
    assert nodes["1"].plan.kwargs is None


def test_times_are_counted_from_now_for_what_is_ready_and_left_for_what_waits() -> None:
    timed = {"task": "a", "delay": 5, "expires": 20}
    nodes, _, _ = rows({"chain": [timed, timed]})
    ready, waiting = nodes["0"], nodes["1"]
    assert (ready.job.state, ready.job.eta, ready.due_at, ready.job.expires) == (State.SCHEDULED, 105.0, 105.0, 120.0)
    assert (waiting.job.eta, waiting.job.expires, waiting.plan.delay, waiting.plan.expires) == (None, None, 5, 20)


def test_an_eta_that_has_passed_is_no_reason_to_wait() -> None:
    nodes, _, _ = rows({"task": "a", "eta": "1970-01-01T00:01:00Z"})
    assert (nodes["0"].job.state, nodes["0"].due_at) == (State.ACCEPTED, 0.0)


def test_a_wait_lacks_its_signal_and_its_time_runs_from_the_start_where_it_waits_for_nothing_else() -> None:
    nodes, _, _ = rows({"nodes": {"a": {"wait": {"timeout": 9}}, "b": {"wait": {"timeout": 9}, "needs": ["a"]}}})
    assert (nodes["a"].unmet, nodes["a"].job.expires, nodes["a"].job.args) == (1, 109.0, [])
    assert (nodes["b"].unmet, nodes["b"].job.expires, nodes["b"].plan.expires) == (2, None, 9)


def test_a_value_and_a_map_without_needs_are_for_the_ledger_to_begin() -> None:
    nodes, _, _ = rows({"group": [{"group": []}, {"map": {"over": [1], "task": "a"}}]})
    assert [(node.job.state, node.unmet, node.due_at) for node in nodes.values()] == [(State.WAITING, 0, None)] * 2
    assert [node.job.task for node in nodes.values()] == ["dure.value", "dure.map"]
    assert nodes["1"].plan.body == {"do": {"task": "a"}}


def test_nodes_that_have_ended_before_are_edges_that_are_met() -> None:
    spec = {"nodes": {"b": {"task": "b"}, "m": {"map": {"over": [1], "task": "a", "args": [{"$result": "b"}]}}}}
    body = compile_spec(read_spec(spec)).steps[1].body
    made = expand(body, [1], "m").steps
    nodes, edges, ids = rows_of(made, "w", NOW, queue_of=str, met={"b": "id of b"})
    assert (nodes[0].job.state, nodes[0].unmet, nodes[0].due_at) == (State.WAITING, 0, None)
    assert edges == [Edge(job_id=ids["m.0"], name="b", needs="id of b", on=On.END)]


def test_what_maps_a_task_goes_to_the_queue_of_that_task() -> None:
    inner = {"task": "a", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    nodes, _, _ = rows({"task": "celery.map", "kwargs": {"task": inner, "it": [1]}, "immutable": True})
    assert nodes["0"].job.queue == "queue of a"
    assert nodes["0"].plan.kind is Kind.TASK
