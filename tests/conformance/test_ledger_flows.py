"""Workflows as they are read: their nodes, their results, and those of plain Celery code."""

import pytest

from dure.errors import (
    InvalidCursor,
)
from dure.job import JobError, Reason, State
from dure.ledger import JobFilter, Ledger
from dure.workflow import Kind, On
from tests.conformance.flow_shapes import begin, chain, current, end, node, ran, submitted
from tests.conformance.ledgers import NOW, accepted, job, told

AT = NOW + 100
DUE = AT + 4
FAILED = {"as_": State.FAILURE, "reason": Reason.ERROR, "error": JobError(type="E", message="no")}


async def test_a_workflow_is_found_with_its_nodes_in_their_order_and_what_they_need(ledger: Ledger) -> None:
    made = await chain(ledger, name="night", timeout=60.0)
    view = await ledger.workflow_view(made.workflow.id)
    assert view is not None
    assert view.workflow == made.workflow == await ledger.workflow(made.workflow.id)
    assert view.counts == {State.ACCEPTED: 1, State.WAITING: 2}
    assert [(each.job.node, each.kind) for each in view.nodes] == [(name, Kind.TASK) for name in "abc"]
    assert [[(edge.name, edge.on) for edge in each.needs] for each in view.nodes] == [
        [],
        [("a", On.SUCCESS)],
        [("b", On.SUCCESS)],
    ]
    assert (view.critical_path, view.critical_seconds) == ((), 0.0)
    assert await ledger.some_workflows([made.workflow.id, "none"]) == {made.workflow.id: made.workflow}


async def test_the_numbers_alone_can_be_had(ledger: Ledger) -> None:
    made = await chain(ledger)
    view = await ledger.workflow_view(made.workflow.id, nodes=False)
    assert view is not None
    assert (view.nodes, view.counts) == ((), {State.ACCEPTED: 1, State.WAITING: 2})


async def test_what_nobody_submitted_is_none(ledger: Ledger) -> None:
    made = await chain(ledger)
    assert await ledger.workflow("none") is None
    assert await ledger.workflow_view("none") is None
    assert await ledger.node("none", "a") is None
    assert await ledger.node(made.workflow.id, "none") is None
    assert await ledger.workflow_failure("none") is None


async def test_the_jobs_of_a_workflow_can_be_listed(ledger: Ledger) -> None:
    made, _ = await chain(ledger), await chain(ledger)
    listed = await ledger.jobs(JobFilter(workflow=made.workflow.id))
    assert [each.node for each in listed.jobs] == ["c", "b", "a"]
    assert await ledger.count_jobs(JobFilter(workflow=made.workflow.id, state=State.WAITING)) == 2


async def test_pages_of_workflows_are_not_moved_by_those_that_come_meanwhile(ledger: Ledger) -> None:
    flows = [await chain(ledger) for _ in range(5)]
    await ledger.cancel_workflow(flows[3].workflow.id, AT, due_at=DUE)
    first = await ledger.workflows(state=State.STARTED, limit=2)
    await chain(ledger)
    second = await ledger.workflows(state=State.STARTED, cursor=first.next, limit=2)
    found = [each.id for page in (first, second) for each in page.workflows]
    assert found == [flows[n].workflow.id for n in (4, 2, 1, 0)]
    assert second.next is None
    with pytest.raises(InvalidCursor):
        await ledger.workflows(cursor="no cursor")


async def test_the_output_is_filled_in_from_the_nodes_that_it_names(ledger: Ledger) -> None:
    made = await chain(ledger)
    await ran(ledger, made, "a", "b", "c", c={"deep": [1, 2]})
    workflow = await ledger.workflow(made.workflow.id)
    assert workflow is not None
    assert workflow.state is State.SUCCESS
    assert await ledger.workflow_result(workflow) == {"is": {"deep": [1, 2]}}


async def test_the_first_node_that_failed_of_itself_tells_why_the_workflow_did(ledger: Ledger) -> None:
    made = await submitted(
        ledger, node("x", continues=True), node("a"), node("b", "a"), node("late"), node("after", on={"x": On.END})
    )
    await end(ledger, made, "x", at=NOW + 5, **FAILED)
    assert await ledger.workflow_failure(made.workflow.id) is None
    await end(ledger, made, "late", at=NOW + 30, **FAILED)
    await end(ledger, made, "a", at=NOW + 20, **FAILED)
    failed = await ledger.workflow_failure(made.workflow.id)
    assert failed == await current(ledger, made, "a")


async def test_where_nothing_failed_of_itself_the_first_node_that_could_not_begin_tells_why(ledger: Ledger) -> None:
    made = await submitted(ledger, node("a"), node("b", "a", args=[{"$result": "a", "path": ["gone"]}]))
    await ran(ledger, made, "a", a={"there": 1})
    failed = await ledger.workflow_failure(made.workflow.id)
    assert failed is not None
    assert (failed.node, failed.reason) == ("b", Reason.UPSTREAM_FAILED)


async def test_the_critical_path_is_the_chain_of_needs_that_ran_longest(ledger: Ledger) -> None:
    made = await submitted(
        ledger, node("a"), node("long", "a"), node("short", "a"), node("end", "long", "short"), node("open", "end")
    )
    for name, begun, ended in (("a", 10, 12), ("long", 13, 20), ("short", 13, 15), ("end", 21, 22.5)):
        await begin(ledger, made, name, at=NOW + begun)
        await end(ledger, made, name, at=NOW + ended)
    view = await ledger.workflow_view(made.workflow.id)
    assert view is not None
    assert (view.critical_path, view.critical_seconds) == (("a", "long", "end"), 10.5)


async def test_the_critical_path_holds_the_time_that_a_signal_was_waited_for(ledger: Ledger) -> None:
    made = await submitted(ledger, node("a"), node("yes", "a", kind=Kind.WAIT))
    await begin(ledger, made, "a", at=NOW + 10)
    await end(ledger, made, "a", at=NOW + 20)
    await ledger.signal(made.workflow.id, "yes", None, NOW + 50)
    view = await ledger.workflow_view(made.workflow.id)
    assert view is not None
    assert (view.critical_path, view.critical_seconds) == (("a", "yes"), 40.0)


async def tree(ledger: Ledger) -> None:
    shared = {"attempt": None, "task": "t.add", "root_id": "root"}
    await ledger.record([told("root", State.STARTED, NOW + 1, **shared)])
    await ledger.record(
        [
            told("left", State.STARTED, NOW + 4, **shared, parent_id="root", group_id="group"),
            told("right", State.STARTED, NOW + 4, **shared, parent_id="root", group_id="group"),
            told("root", State.SUCCESS, NOW + 3, **shared),
            told("left", State.SUCCESS, NOW + 9, **shared, parent_id="root", group_id="group"),
        ]
    )


async def test_jobs_of_one_root_that_plain_celery_code_sent_are_a_workflow(ledger: Ledger) -> None:
    await tree(ledger)
    view = await ledger.workflow_view("root")
    assert view is not None
    assert (view.workflow.origin, view.workflow.state, view.workflow.name) == ("celery", State.STARTED, "t.add")
    assert (view.workflow.created_at, view.workflow.finished_at) == (NOW + 1, None)
    assert view.counts == {State.SUCCESS: 2, State.STARTED: 1}
    assert next(iter(view.nodes)).job.id == "root"
    assert {each.job.id: [edge.needs for edge in each.needs] for each in view.nodes} == {
        "root": [],
        "left": ["root"],
        "right": ["root"],
    }
    assert (view.critical_path, view.critical_seconds) == (("root", "left"), 7.0)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([State.SUCCESS], (State.SUCCESS, None)),
        ([State.FAILURE], (State.FAILURE, Reason.TIME_LIMIT)),
        ([State.REVOKED], (State.REVOKED, Reason.TIME_LIMIT)),
    ],
)
async def test_its_state_is_made_from_those_of_its_jobs(
    ledger: Ledger, ends: list[State], expected: tuple[State, str | None]
) -> None:
    await tree(ledger)
    for each in ends:
        reason = None if each is State.SUCCESS else Reason.TIME_LIMIT
        await ledger.record([told("right", each, NOW + 12, attempt=None, reason=reason)])
    for workflow_id in ("root", "group"):
        view = await ledger.workflow_view(workflow_id, nodes=False)
        assert view is not None
        assert (view.workflow.state, view.workflow.reason) == expected
        assert view.workflow.finished_at == NOW + 12


async def test_a_group_is_found_by_its_own_id(ledger: Ledger) -> None:
    await tree(ledger)
    view = await ledger.workflow_view("group")
    assert view is not None
    assert {each.job.id for each in view.nodes} == {"left", "right"}
    assert [each.needs for each in view.nodes] == [(), ()]


async def test_a_single_job_is_no_workflow(ledger: Ledger) -> None:
    alone = job()
    await accepted(ledger, alone)
    await ledger.record([told("only", State.STARTED, root_id="only", attempt=None, group_id="of-one")])
    for workflow_id in (alone.id, "only", "of-one"):
        assert await ledger.workflow_view(workflow_id) is None
