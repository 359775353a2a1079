"""Workflows that are run again, from what failed or from one node."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import pytest

from dure.errors import (
    JobEnded,
    JobNotEnded,
    UnknownNode,
    UnknownWorkflow,
    WorkflowEnded,
    WorkflowNotEnded,
)
from dure.job import Job, JobError, Reason, State
from dure.ledger import JobFilter, Ledger
from dure.workflow import Flow, Kind, On
from tests.conformance.flow_shapes import FROM_A, begin, chain, current, end, node, ran, state, states, submitted
from tests.conformance.ledgers import NOW, PATIENCE, Database, job, opened, told

AT = NOW + 100
DUE = AT + 4
FAILED = {"as_": State.FAILURE, "reason": Reason.ERROR, "error": JobError(type="E", message="no")}
LATE = NOW + 1e6
_ENDED = (JobEnded, JobNotEnded, WorkflowEnded, WorkflowNotEnded)


async def test_a_workflow_is_run_again_from_what_failed_and_the_rest_is_kept(
    database: Database, ledger: Ledger
) -> None:
    made = await chain(ledger, timeout=50.0)
    await ran(ledger, made, "a", a=7)
    await end(ledger, made, "b", root_id=f"{made.workflow.id}.b", **FAILED)
    before = {name: await current(ledger, made, name) for name in "abc"}
    given: list[Job] = []
    ledger.on_release = given.extend
    again = await ledger.retry_workflow(made.workflow.id, AT)
    assert again == await ledger.workflow(made.workflow.id)
    assert (again.state, again.reason, again.finished_at, again.deadline) == (State.STARTED, None, None, AT + 50)
    after = {name: await current(ledger, made, name) for name in "abc"}
    assert after["a"] == before["a"]
    assert (after["b"].state, after["b"].args, after["b"].retry_of) == (State.ACCEPTED, [7], before["b"].id)
    assert after["b"].root_id is None
    assert (after["c"].state, after["c"].retry_of) == (State.WAITING, before["c"].id)
    assert given == [after["b"]]
    assert database.due()[after["b"].id] == AT + 4
    old = await ledger.some_jobs([before["b"].id, before["c"].id])
    assert {each.replaced_by for each in old.values()} == {after["b"].id, after["c"].id}
    await ran(ledger, made, "b", "c", b=8, c=9)
    assert (await current(ledger, made, "c")).args == [8, {"$result": "b"}]
    assert await state(ledger, made) == (State.SUCCESS, None)


async def test_a_cancelled_workflow_can_be_run_again_and_again(ledger: Ledger) -> None:
    made = await chain(ledger)
    for _ in range(3):
        await ledger.cancel_workflow(made.workflow.id, AT, due_at=DUE)
        again = await ledger.retry_workflow(made.workflow.id, AT)
        assert (again.state, again.cancel_requested_at) == (State.STARTED, None)
        assert await states(ledger, made) == {"a": "ACCEPTED", "b": "WAITING", "c": "WAITING"}
    await ran(ledger, made, "a", "b", "c")
    assert await state(ledger, made) == (State.SUCCESS, None)


async def test_a_workflow_without_failures_is_left_as_it_is(ledger: Ledger) -> None:
    made = await chain(ledger)
    await ran(ledger, made, "a", "b", "c")
    before = await ledger.workflow_view(made.workflow.id)
    assert before is not None
    assert await ledger.retry_workflow(made.workflow.id, AT) == before.workflow
    assert await ledger.workflow_view(made.workflow.id) == before


async def test_from_a_node_on_all_that_depends_on_it_is_run_again(ledger: Ledger) -> None:
    made = await submitted(
        ledger, node("a"), node("b", "a"), node("c", "b", "x", args=[{"$result": "x"}]), node("x", "a"), node("y", "x")
    )
    await ran(ledger, made, "a", "b", "x", "c", "y", x="kept")
    before = {name: await current(ledger, made, name) for name in "abcxy"}
    await ledger.retry_workflow(made.workflow.id, AT, node="b")
    assert await state(ledger, made) == (State.STARTED, None)
    after = {name: await current(ledger, made, name) for name in "abcxy"}
    assert {name for name in after if after[name] != before[name]} == {"b", "c"}
    assert (after["b"].state, after["c"].state) == (State.ACCEPTED, State.WAITING)
    await ran(ledger, made, "b")
    assert (await current(ledger, made, "c")).args == ["kept"]
    await ran(ledger, made, "c")
    assert await state(ledger, made) == (State.SUCCESS, None)


async def test_a_node_can_be_run_again_while_others_run_and_what_waits_goes_on_waiting(ledger: Ledger) -> None:
    made = await submitted(
        ledger,
        node("a", continues=True),
        node("b"),
        node("done"),
        node("both", "b", "done", on={"a": On.END}, args=[{"$result": name} for name in ("a", "b", "done")]),
        node("other", "done", "b"),
    )
    await ran(ledger, made, "done", done=3)
    await end(ledger, made, "a", **FAILED)
    waiting = await current(ledger, made, "both")
    await ledger.retry_workflow(made.workflow.id, AT, node="a")
    assert (await current(ledger, made, "both")).id == waiting.id
    assert (await current(ledger, made, "other")).state is State.WAITING
    await ran(ledger, made, "b", b=2)
    assert (await current(ledger, made, "other")).state is State.ACCEPTED
    assert (await current(ledger, made, "both")).state is State.WAITING
    await ran(ledger, made, "a", a=1)
    assert (await current(ledger, made, "both")).args == [1, 2, 3]
    await ran(ledger, made, "both", "other")
    assert await state(ledger, made) == (State.SUCCESS, None)


async def test_what_another_failure_keeps_from_beginning_does_not_begin(ledger: Ledger) -> None:
    made = await submitted(
        ledger, node("a"), node("x"), node("both", "a", "x"), node("oops", "a", on={"ok": On.FAILURE}), node("ok")
    )
    await ran(ledger, made, "a", "ok")
    await end(ledger, made, "x", **FAILED)
    await ledger.retry_workflow(made.workflow.id, AT, node="a")
    again = await current(ledger, made, "both")
    assert (again.state, again.reason) == (State.FAILURE, Reason.UPSTREAM_FAILED)
    assert again.retry_of is not None
    skipped = await current(ledger, made, "oops")
    assert (skipped.state, skipped.reason) == (State.REVOKED, Reason.SKIPPED)
    await ran(ledger, made, "a")
    assert await state(ledger, made) == (State.FAILURE, Reason.ERROR)


async def test_a_handler_runs_again_where_what_it_handles_fails_again_and_is_skipped_where_not(ledger: Ledger) -> None:
    made = await submitted(ledger, node("a"), node("oops", on={"a": On.FAILURE}))
    await end(ledger, made, "a", **FAILED)
    await ran(ledger, made, "oops")
    await ledger.retry_workflow(made.workflow.id, AT)
    assert await states(ledger, made) == {"a": "ACCEPTED", "oops": "WAITING"}
    await ran(ledger, made, "a")
    assert await states(ledger, made) == {"a": "SUCCESS", "oops": "REVOKED"}
    assert await state(ledger, made) == (State.SUCCESS, None)


async def test_a_signal_is_waited_for_anew(ledger: Ledger) -> None:
    made = await submitted(ledger, node("a"), node("yes", "a", kind=Kind.WAIT), node("b", "yes"))
    await ran(ledger, made, "a")
    await ledger.signal(made.workflow.id, "yes", 1, AT)
    await end(ledger, made, "b", **FAILED)
    await ledger.retry_workflow(made.workflow.id, AT)
    assert (await current(ledger, made, "yes")).result == 1
    await ran(ledger, made, "b")
    await ledger.retry_workflow(made.workflow.id, AT, node="yes")
    assert await states(ledger, made) == {"a": "SUCCESS", "yes": "WAITING", "b": "WAITING"}
    await ledger.signal(made.workflow.id, "yes", 2, AT)
    assert (await current(ledger, made, "b")).state is State.ACCEPTED


async def test_an_early_signal_ends_with_the_workflow_that_was_cancelled(ledger: Ledger) -> None:
    made = await submitted(ledger, node("a"), node("yes", "a", kind=Kind.WAIT))
    await ledger.signal(made.workflow.id, "yes", "early", AT)
    await ledger.cancel_workflow(made.workflow.id, AT, due_at=DUE)
    await ledger.retry_workflow(made.workflow.id, AT)
    await ran(ledger, made, "a")
    assert (await current(ledger, made, "yes")).state is State.WAITING
    await ledger.signal(made.workflow.id, "yes", "anew", AT)
    assert (await current(ledger, made, "yes")).result == "anew"


async def test_a_signal_that_was_early_is_kept_though_a_need_is_run_again(ledger: Ledger) -> None:
    made = await submitted(
        ledger, node("a", continues=True), node("b"), node("yes", "b", on={"a": On.END}, kind=Kind.WAIT)
    )
    await ledger.signal(made.workflow.id, "yes", "early", AT)
    await end(ledger, made, "a", **FAILED)
    await ledger.retry_workflow(made.workflow.id, AT, node="a")
    await ran(ledger, made, "a", "b")
    assert (await current(ledger, made, "yes")).result == "early"
    assert await state(ledger, made) == (State.SUCCESS, None)


async def test_a_node_is_run_with_what_the_caller_made_of_it(ledger: Ledger) -> None:
    made = await chain(ledger)
    await ran(ledger, made, "a", a=7)
    await end(ledger, made, "b", **FAILED)
    edited = job(5, args=["other"], queue="aside", tags=("again",))
    await ledger.retry_workflow(made.workflow.id, AT, node="b", job=edited)
    again = await current(ledger, made, "b")
    assert (again.id, again.args, again.queue, again.tags) == (edited.id, ["other"], "aside", ("again",))
    assert "aside" in await ledger.queues()
    assert again.retry_of is not None
    assert again.state is State.ACCEPTED
    assert await ledger.count_jobs(JobFilter(tag="again")) == 1


async def test_what_runs_is_not_run_again(ledger: Ledger) -> None:
    made = await submitted(ledger, node("a"), node("b", "a"), node("c", "b"), timeout=50.0)
    with pytest.raises(WorkflowNotEnded):
        await ledger.retry_workflow(made.workflow.id, AT)
    with pytest.raises(JobNotEnded) as caught:
        await ledger.retry_workflow(made.workflow.id, AT, node="c")
    assert caught.value.job.node == "c"
    await ran(ledger, made, "a")
    await begin(ledger, made, "b")
    with pytest.raises(JobNotEnded) as caught:
        await ledger.retry_workflow(made.workflow.id, AT, node="a")
    assert caught.value.job == await current(ledger, made, "b")
    await ledger.end_overdue(AT, due_at=DUE)
    with pytest.raises(JobNotEnded) as caught:
        await ledger.retry_workflow(made.workflow.id, AT)
    assert caught.value.job.node == "b"
    assert await states(ledger, made) == {"a": "SUCCESS", "b": "STARTED", "c": "REVOKED"}


async def test_running_again_what_is_unknown_or_being_cancelled_is_refused(ledger: Ledger) -> None:
    made = await submitted(ledger, node("a"), node("b"))
    with pytest.raises(UnknownWorkflow):
        await ledger.retry_workflow("none", AT)
    with pytest.raises(UnknownNode):
        await ledger.retry_workflow(made.workflow.id, AT, node="none")
    await ran(ledger, made, "a")
    await begin(ledger, made, "b")
    await ledger.cancel_workflow(made.workflow.id, AT, due_at=DUE)
    with pytest.raises(WorkflowNotEnded):
        await ledger.retry_workflow(made.workflow.id, AT, node="a")


BODY: dict[str, Any] = {"do": {"task": "t.add"}}


async def mapped(ledger: Ledger, *items: Any) -> Flow:
    made = await submitted(
        ledger,
        node("a"),
        node("m", "a", kind=Kind.MAP, args=FROM_A, body=BODY),
        node("c", "m", args=[{"$result": "m"}]),
    )
    await ran(ledger, made, "a", a=list(items))
    return made


async def made_nodes(ledger: Ledger, made: Flow) -> list[str]:
    return [name for name in await states(ledger, made) if name.startswith("m.")]


async def test_of_a_map_only_the_item_that_failed_is_run_again(ledger: Ledger) -> None:
    made = await mapped(ledger, "x", "y")
    first, second = await made_nodes(ledger, made)
    await end(ledger, made, first, result=1, has_result=True)
    await end(ledger, made, second, **FAILED)
    kept = await current(ledger, made, first)
    await ledger.retry_workflow(made.workflow.id, AT)
    assert await current(ledger, made, first) == kept
    again = await current(ledger, made, second)
    assert (again.state, again.args) == (State.ACCEPTED, ["y"])
    await end(ledger, made, second, result=2, has_result=True)
    assert (await current(ledger, made, "c")).args == [[1, 2]]
    await ran(ledger, made, "c")
    assert await state(ledger, made) == (State.SUCCESS, None)


@pytest.mark.parametrize("from_", ["a", "m"])
async def test_a_map_that_is_run_again_makes_its_nodes_anew(ledger: Ledger, from_: str) -> None:
    made = await mapped(ledger, 1, 2, 3)
    old = await made_nodes(ledger, made)
    assert len(old) == 3
    for name in old:
        await end(ledger, made, name, result=name, has_result=True)
    await ran(ledger, made, "c")
    for _ in range(2):
        await ledger.retry_workflow(made.workflow.id, AT, node=from_)
        if from_ == "a":
            assert await made_nodes(ledger, made) == []
            await ran(ledger, made, "a", a=[4, 5])
        fresh = await made_nodes(ledger, made)
        assert len(fresh) == (2 if from_ == "a" else 3)
        for name in fresh:
            assert (await current(ledger, made, name)).state is State.ACCEPTED
            await end(ledger, made, name, result=0, has_result=True)
        assert (await current(ledger, made, "c")).args == [[0] * len(fresh)]
        await ran(ledger, made, "c")
        assert await state(ledger, made) == (State.SUCCESS, None)


async def test_what_a_map_made_and_still_waits_is_given_up_when_the_map_is_made_anew(ledger: Ledger) -> None:
    made = await submitted(ledger, node("a"), node("m", "a", kind=Kind.MAP, args=FROM_A, body={"do": {"wait": {}}}))
    await ran(ledger, made, "a", a=[1, 2])
    old = [await current(ledger, made, name) for name in ("m", *await made_nodes(ledger, made))]
    await ledger.retry_workflow(made.workflow.id, AT, node="a")
    given_up = (await ledger.some_jobs([each.id for each in old])).values()
    assert [(each.state, each.reason) for each in given_up] == [(State.REVOKED, Reason.REVOKED)] * 3
    await ran(ledger, made, "a", a=[3])
    (name,) = await made_nodes(ledger, made)
    await ledger.signal(made.workflow.id, name, "yes", AT)
    assert (await current(ledger, made, "m")).result == ["yes"]
    assert await state(ledger, made) == (State.SUCCESS, None)


async def sub_workflow(ledger: Ledger) -> Flow:
    """`a` has returned a workflow of one step."""
    made = await submitted(ledger, node("a"), node("c", "a", args=FROM_A))
    await ran(ledger, made, "a", a={"$workflow": {"nodes": {"x": {"task": "t.add", "args": [1]}}}})
    assert await states(ledger, made) == {"a": "WAITING", "a.x": "ACCEPTED", "c": "WAITING"}
    return made


async def test_what_failed_in_a_workflow_that_a_task_returned_is_run_again_in_it(ledger: Ledger) -> None:
    made = await sub_workflow(ledger)
    await end(ledger, made, "a.x", **FAILED)
    assert await state(ledger, made) == (State.FAILURE, Reason.ERROR)
    await ledger.retry_workflow(made.workflow.id, AT)
    assert await states(ledger, made) == {"a": "WAITING", "a.x": "ACCEPTED", "c": "WAITING"}
    await end(ledger, made, "a.x", result=5, has_result=True)
    assert (await current(ledger, made, "c")).args == [{"x": 5}]


async def test_a_task_that_returned_a_workflow_can_be_run_again_with_all_of_it(ledger: Ledger) -> None:
    made = await sub_workflow(ledger)
    with pytest.raises(JobNotEnded):
        await ledger.retry_workflow(made.workflow.id, AT, node="a")
    await end(ledger, made, "a.x", **FAILED)
    await ledger.retry_workflow(made.workflow.id, AT, node="a")
    again = await current(ledger, made, "a")
    assert (again.task, again.state) == ("t.add", State.ACCEPTED)
    assert await states(ledger, made) == {"a": "ACCEPTED", "c": "WAITING"}
    await ran(ledger, made, "a", a="no workflow")
    assert (await current(ledger, made, "c")).args == ["no workflow"]
    await ran(ledger, made, "c")
    assert await state(ledger, made) == (State.SUCCESS, None)


async def test_the_critical_path_leads_through_a_map(ledger: Ledger) -> None:
    made = await mapped(ledger, "x", "y")
    first, second = await made_nodes(ledger, made)
    for name, seconds in ((first, 3), (second, 8)):
        await begin(ledger, made, name, at=NOW + 30)
        await end(ledger, made, name, at=NOW + 30 + seconds, result=1, has_result=True)
    await begin(ledger, made, "c", at=NOW + 40)
    await end(ledger, made, "c", at=NOW + 41)
    view = await ledger.workflow_view(made.workflow.id)
    assert view is not None
    assert (view.critical_path, view.critical_seconds) == (("a", "m", second, "c"), 9.0)


async def test_at_once_with_everything_else_nothing_waits_for_ever_and_the_open_nodes_are_counted_right(
    database: Database, ledger: Ledger
) -> None:
    shapes = [node(f"n{i}") for i in range(6)]
    last = node("last", *(shape.name for shape in shapes), "yes")
    flows = [await submitted(ledger, *shapes, node("yes", kind=Kind.WAIT), last, timeout=60.0) for _ in range(4)]
    names = [f"{each.workflow.id}.{shape.name}" for each in flows for shape in shapes]

    async def quietly(step: Awaitable[object]) -> None:
        with suppress(_ENDED):
            await step

    async with opened(database) as other, asyncio.timeout(2 * PATIENCE):
        for turn in range(3):
            await asyncio.gather(
                *(which.mark_queued(names[::step], NOW + 5) for which in (ledger, other) for step in (1, -1)),
                *(
                    which.record([told(n, State.STARTED) for n in names[::step]])
                    for which in (ledger, other)
                    for step in (2, -3)
                ),
                *(ledger.record([told(n, State.SUCCESS, result=1)]) for n in names[turn::4]),
                *(quietly(other.signal(each.workflow.id, "yes", turn, AT)) for each in flows[:2]),
                *(quietly(ledger.cancel_workflow(each.workflow.id, AT, due_at=DUE)) for each in flows[1:]),
                other.end_overdue(AT if turn else NOW, due_at=DUE),
                *(quietly(other.retry_workflow(each.workflow.id, AT)) for each in flows[::-1]),
                *(which.claim_due(LATE, lease=3, limit=7) for which in (ledger, other)),
            )
    counted = dict(database.rows("SELECT id, open FROM workflows"))  # type: ignore[arg-type]
    for each in flows:
        view = await ledger.workflow_view(each.workflow.id, nodes=False)
        assert view is not None
        left = sum(number for state, number in view.counts.items() if not state.final)
        assert counted[each.workflow.id] == left
