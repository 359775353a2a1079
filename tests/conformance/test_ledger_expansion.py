"""Nodes that are made on the way: a map's, and those of a workflow that a task returned."""

from typing import Any
from uuid import uuid4

import pytest

from dure.job import State
from dure.ledger import Ledger, Request
from dure.node import Node
from dure.task import Task
from dure.wire import Announcement
from dure.workflow import Flow, Workflow
from dure.workflows.compile import compile_spec
from dure.workflows.rows import rows_of
from dure.workflows.spec import read_spec
from tests.conformance.flows import LATER, ended, note_releases
from tests.conformance.ledgers import NOW, Database


def flow_of(spec: Any) -> Flow:
    compiled = compile_spec(read_spec(spec))
    workflow = Workflow(id=f"w-{uuid4().hex[:12]}", output=compiled.output, queue="own", created_at=NOW, changed_at=NOW)
    nodes, edges, _ = rows_of(compiled.steps, workflow.id, NOW, queue_of=lambda _: "q")
    return Flow(workflow=workflow, nodes=tuple(nodes), edges=tuple(edges))


class Run:
    """A workflow that is played through by the names of its nodes."""

    def __init__(self, ledger: Ledger, spec: Any) -> None:
        self.ledger = ledger
        self.flow = flow_of(spec)
        self.released = note_releases(ledger)

    async def accepted(self) -> "Run":
        await self.ledger.accept_once([Request(flow=self.flow)], NOW)
        return self

    async def node(self, name: str) -> Any:
        found = await self.ledger.node(self.flow.workflow.id, name)
        assert found is not None, name
        return found

    async def ends(self, name: str, state: State = State.SUCCESS, **fields: Any) -> None:
        await ended(self.ledger, (await self.node(name)).id, state=state, **fields)

    async def workflow(self) -> Workflow:
        found = await self.ledger.workflow(self.flow.workflow.id)
        assert found is not None
        return found

    async def result(self) -> Any:
        workflow = await self.workflow()
        assert workflow.state is State.SUCCESS
        return await self.ledger.workflow_result(workflow)


MAPPED = {
    "nodes": {
        "list": {"task": "t.list"},
        "each": {"map": {"over": {"$result": "list"}, "do": {"task": "t.double"}}},
        "sum": {"task": "t.sum", "args": [{"$result": "each"}]},
    }
}


async def test_a_map_runs_its_body_for_each_item_and_gives_their_results_in_order(
    ledger: Ledger, database: Database
) -> None:
    run = await Run(ledger, MAPPED).accepted()
    await run.ends("list", result=[1, {"$result": "list"}, 3])
    made = run.released.pop()
    assert [(each.task, each.args, each.queue, each.state) for each in made] == [
        ("t.double", [1], "own", State.ACCEPTED),
        ("t.double", [{"$result": "list"}], "own", State.ACCEPTED),
        ("t.double", [3], "own", State.ACCEPTED),
    ]
    maker = next(node.job.id for node in run.flow.nodes if node.job.node == "each")
    assert {each.parent_id for each in made} == {maker}
    found = await ledger.job(maker)
    assert found is not None
    assert (found.state, found.replaced_by) == (State.SUCCESS, (await run.node("each")).id)
    assert len(await ledger.claim_due(LATER + 4, lease=5, limit=9)) == 3
    for number, each in reversed(list(enumerate(made))):
        await ended(ledger, each.id, result=number * 2)
    assert (await run.node("sum")).args == [[0, 2, 4]]
    await run.ends("sum", result=6)
    assert await run.result() == {"sum": 6}
    assert database.rows("SELECT open FROM workflows") == [(0,)]


async def test_a_map_over_nothing_is_an_empty_list_at_once(ledger: Ledger) -> None:
    run = await Run(ledger, MAPPED).accepted()
    await run.ends("list", result=[])
    assert [each.args for each in run.released.pop()] == [[[]]]


@pytest.mark.parametrize(("value", "said"), [({"a": 1}, "an object"), ("text", "a string"), (None, "null")])
async def test_a_map_over_what_is_no_list_fails_and_says_so(ledger: Ledger, value: Any, said: str) -> None:
    run = await Run(ledger, MAPPED).accepted()
    await run.ends("list", result=value)
    failed = await run.node("each")
    assert (failed.state, failed.reason) == (State.FAILURE, "upstream-failed")
    assert (failed.error.type, failed.error.message) == ("NotAList", f"a map needs a list, and was given {said}")
    assert (await run.workflow()).state is State.FAILURE


async def test_a_map_that_needs_nothing_is_made_when_the_workflow_is_accepted(ledger: Ledger) -> None:
    run = await Run(ledger, {"map": {"over": [1, 2], "do": {"chain": [{"task": "t.a"}, {"task": "t.b"}]}}}).accepted()
    first = run.released.pop()
    assert [(each.task, each.args) for each in first] == [("t.a", [1]), ("t.a", [2])]
    await ended(ledger, *(each.id for each in first), result=9)
    second = run.released.pop()
    assert [(each.task, each.args) for each in second] == [("t.b", [9]), ("t.b", [9])]
    await ended(ledger, *(each.id for each in second), result=8)
    assert await run.result() == [8, 8]


async def test_the_body_of_a_map_may_refer_to_what_is_outside(ledger: Ledger) -> None:
    spec = {
        "nodes": {
            "list": {"task": "t.list"},
            "rate": {"task": "t.rate"},
            "each": {
                "map": {
                    "over": {"$result": "list"},
                    "do": {"task": "t.mul", "args": [{"$item": True}, {"$result": "rate", "path": ["now"]}]},
                }
            },
        }
    }
    run = await Run(ledger, spec).accepted()
    await run.ends("rate", result={"now": 7})
    await run.ends("list", result=[1, 2])
    assert [each.args for each in run.released.pop()] == [[1, 7], [2, 7]]


async def test_a_map_in_a_map(ledger: Ledger) -> None:
    spec = {"map": {"over": [[1, 2], [], [3]], "do": {"map": {"do": {"task": "t.a"}}}}}
    run = await Run(ledger, spec).accepted()
    made = run.released.pop()
    assert [each.args for each in made] == [[1], [2], [3]]
    for each in made:
        await ended(ledger, each.id, result=each.args[0] * 10 if each.args else None)
    assert await run.result() == [[10, 20], [], [30]]


async def test_a_failed_item_fails_the_map(ledger: Ledger) -> None:
    run = await Run(ledger, MAPPED).accepted()
    await run.ends("list", result=[1, 2])
    first, second = run.released.pop()
    await ended(ledger, first.id, state=State.FAILURE)
    assert (await run.node("sum")).state is State.FAILURE
    await ended(ledger, second.id)
    assert ((await run.workflow()).state, (await run.workflow()).reason) == (State.FAILURE, "error")


async def test_a_task_that_returns_a_workflow_is_replaced_by_it(ledger: Ledger, database: Database) -> None:
    run = await Run(ledger, {"chain": [{"task": "t.a", "name": "a"}, {"task": "t.b", "name": "b"}]}).accepted()
    maker = await run.node("a")
    await run.ends("a", result={"$workflow": {"group": [{"task": "t.x"}, {"task": "t.y"}]}})
    made = run.released.pop()
    assert [each.task for each in made] == ["t.x", "t.y"]
    assert all(each.node is not None and each.node.startswith("a.") for each in made)
    value = await run.node("a")
    found = await ledger.job(maker.id)
    assert found is not None
    assert (found.state, found.replaced_by, value.state) == (State.SUCCESS, value.id, State.WAITING)
    assert (await run.node("b")).state is State.WAITING
    await ended(ledger, *(each.id for each in made), result=1)
    assert (await run.node("b")).args == [[1, 1]]
    await run.ends("b", result=2)
    assert await run.result() == 2
    assert database.rows("SELECT open FROM workflows") == [(0,)]


async def test_an_end_told_again_makes_nothing_twice(ledger: Ledger, database: Database) -> None:
    run = await Run(ledger, {"task": "t.a", "name": "a"}).accepted()
    maker = await run.node("a")
    for at in (LATER, LATER + 1):
        await ended(ledger, maker.id, at=LATER, result={"$workflow": {"task": "t.x"}})
        await ended(ledger, maker.id, at=at, attempt=0, result={"$workflow": {"task": "t.other"}})
    assert database.rows("SELECT count(*) FROM jobs") == [(3,)]
    assert len(run.released) == 1


async def test_a_task_that_returns_a_celery_signature_is_replaced_by_it(ledger: Ledger) -> None:
    run = await Run(ledger, {"task": "t.a", "name": "a"}).accepted()
    signature = {"task": "t.x", "args": [5], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    await run.ends("a", result=signature)
    (made,) = run.released.pop()
    assert (made.task, made.args) == ("t.x", [5])
    await ended(ledger, made.id, result="done")
    assert await run.result() == "done"


@pytest.mark.parametrize("wrong", [{"chain": 7}, {"nodes": {"a": {"task": "t", "needs": ["b"]}}}])
async def test_a_workflow_that_is_none_fails_and_says_why(ledger: Ledger, wrong: Any) -> None:
    run = await Run(ledger, {"chain": [{"task": "t.a", "name": "a"}, {"task": "t.b", "name": "b"}]}).accepted()
    await run.ends("a", result={"$workflow": wrong})
    failed = await run.node("a")
    assert (failed.state, failed.reason, failed.error.type) == (State.FAILURE, "upstream-failed", "InvalidWorkflow")
    assert failed.error.message
    assert (await run.node("b")).state is State.FAILURE
    assert (await run.workflow()).state is State.FAILURE


async def test_a_workflow_does_not_grow_without_end(ledger: Ledger) -> None:
    run = await Run(ledger, MAPPED).accepted()
    await run.ends("list", result=list(range(20_000)))
    failed = await run.node("each")
    assert (failed.state, failed.error.type) == (State.FAILURE, "InvalidWorkflow")
    assert "20000" in failed.error.message
    assert not run.released


async def test_a_workflow_that_was_cancelled_does_not_grow(ledger: Ledger, database: Database) -> None:
    run = await Run(ledger, {"task": "t.a", "name": "a"}).accepted()
    maker = await run.node("a")
    await ledger.cancel_workflow(run.flow.workflow.id, LATER, due_at=LATER)
    await ended(ledger, maker.id, result={"$workflow": {"task": "t.x"}})
    assert database.rows("SELECT count(*) FROM jobs") == [(1,)]
    assert (await run.workflow()).state is State.REVOKED


async def test_nodes_that_are_made_go_where_their_task_is_announced(ledger: Ledger) -> None:
    node = Node(hostname="w@a", online=True, heartbeat_at=NOW, queues=("announced",))
    task = Task(name="t.double", queue="announced", announced_at=NOW, announced_by="w@a")
    await ledger.record([], [Announcement(node=node, tasks=(task,))])
    run = await Run(ledger, MAPPED).accepted()
    await run.ends("list", result=[1])
    assert [each.queue for each in run.released.pop()] == ["announced"]
