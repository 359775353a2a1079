"""Workflows that are cancelled, ended at their deadline, and signalled."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from dure.errors import (
    JobEnded,
    UnknownNode,
    UnknownWorkflow,
    WorkflowEnded,
)
from dure.job import Job, JobError, Reason, State
from dure.ledger import JobFilter, Ledger
from dure.ledger.coordinator import Coordinator
from dure.link import Link
from dure.workflow import Kind, On
from tests.conformance.flow_shapes import begin, chain, current, end, node, state, states, submitted
from tests.conformance.ledgers import NOW, PATIENCE, Database, opened

AT = NOW + 100
DUE = AT + 4
FAILED = {"as_": State.FAILURE, "reason": Reason.ERROR, "error": JobError(type="E", message="no")}


async def test_cancelling_revokes_what_nobody_has_begun_and_ends_a_workflow_of_which_nothing_runs(
    database: Database, ledger: Ledger
) -> None:
    made = await chain(ledger)
    cancelled = await ledger.cancel_workflow(made.workflow.id, AT, due_at=DUE)
    assert cancelled is not None
    assert await states(ledger, made) == dict.fromkeys("abc", "REVOKED")
    assert cancelled.told == [(await current(ledger, made, "a")).id]
    assert cancelled.workflow == await ledger.workflow(made.workflow.id)
    assert (cancelled.workflow.state, cancelled.workflow.finished_at) == (State.REVOKED, AT)
    assert cancelled.workflow.cancel_requested_at == AT
    revoked = await current(ledger, made, "b")
    assert (revoked.reason, revoked.finished_at, revoked.cancel_requested_at) == (Reason.REVOKED, AT, AT)
    due = database.due()
    assert [due[(await current(ledger, made, name)).id] for name in "abc"] == [DUE, None, None]


async def test_what_runs_is_asked_to_end_and_the_workflow_ends_with_it(database: Database, ledger: Ledger) -> None:
    made = await submitted(ledger, node("a"), node("b", "a"), node("oops", on={"a": On.FAILURE}))
    await begin(ledger, made, "a")
    cancelled = await ledger.cancel_workflow(made.workflow.id, AT, due_at=DUE)
    assert cancelled is not None
    running = await current(ledger, made, "a")
    assert cancelled.told == [running.id]
    assert (running.state, running.worker, running.cancel_requested_at) == (State.STARTED, "w@a", AT)
    assert database.due()[running.id] == DUE
    assert await state(ledger, made) == (State.STARTED, None)
    await end(ledger, made, "a", as_=State.REVOKED, at=AT + 2, reason=Reason.TERMINATED)
    assert await state(ledger, made) == (State.REVOKED, Reason.REVOKED)
    assert await states(ledger, made) == dict.fromkeys(["a", "b", "oops"], "REVOKED")


async def test_cancelling_a_workflow_twice_changes_nothing(database: Database, ledger: Ledger) -> None:
    made, other = await chain(ledger), await chain(ledger)
    await begin(ledger, other, "a")
    for each, told_again in ((made, []), (other, [])):
        first = await ledger.cancel_workflow(each.workflow.id, AT, due_at=DUE)
        assert first is not None
        await ledger.mark_revoked(first.told)
        second = await ledger.cancel_workflow(each.workflow.id, AT + 9, due_at=DUE + 9)
        assert second is not None
        assert (second.workflow, second.told) == (first.workflow, told_again)
    assert set(database.due().values()) == {None}


async def test_a_workflow_that_has_ended_otherwise_can_not_be_cancelled(ledger: Ledger) -> None:
    made = await chain(ledger)
    await end(ledger, made, "a", **FAILED)
    with pytest.raises(WorkflowEnded) as caught:
        await ledger.cancel_workflow(made.workflow.id, AT, due_at=DUE)
    assert caught.value.workflow.state is State.FAILURE
    assert await ledger.cancel_workflow("none", AT, due_at=DUE) is None


async def test_a_scheduled_node_that_no_relay_has_taken_needs_no_word_to_the_broker(
    database: Database, ledger: Ledger
) -> None:
    made = await submitted(ledger, node("a"), node("b", "a", delay=60.0))
    await end(ledger, made, "a")
    assert (await current(ledger, made, "b")).state is State.SCHEDULED
    cancelled = await ledger.cancel_workflow(made.workflow.id, AT, due_at=DUE)
    assert cancelled is not None
    assert (cancelled.told, cancelled.workflow.state) == ([], State.REVOKED)
    assert database.due()[(await current(ledger, made, "b")).id] is None


async def test_a_workflow_whose_time_is_over_ends_at_once_whatever_runs(ledger: Ledger) -> None:
    over = await submitted(ledger, node("a"), node("b", "a"), node("x"), timeout=50.0)
    later, without = await chain(ledger, timeout=500.0), await chain(ledger)
    await begin(ledger, over, "a")
    (ended,) = await ledger.end_overdue(AT, due_at=DUE)
    assert ended.workflow == await ledger.workflow(over.workflow.id)
    assert (ended.workflow.state, ended.workflow.reason) == (State.FAILURE, Reason.TIME_LIMIT)
    assert ended.workflow.finished_at == AT
    assert ended.told == sorted([(await current(ledger, over, name)).id for name in "ax"])
    assert await states(ledger, over) == {"a": "STARTED", "b": "REVOKED", "x": "REVOKED"}
    for each in (later, without):
        assert await state(ledger, each) == (State.STARTED, None)
    assert await ledger.end_overdue(AT, due_at=DUE) == []
    await end(ledger, over, "a", at=AT + 5)
    after = await ledger.workflow(over.workflow.id)
    assert after is not None
    assert (after.state, after.reason, after.finished_at) == (State.FAILURE, Reason.TIME_LIMIT, AT)
    assert (await current(ledger, over, "b")).state is State.REVOKED


async def test_of_two_that_look_at_once_one_ends_it(database: Database, ledger: Ledger) -> None:
    made = [await chain(ledger, timeout=50.0) for _ in range(4)]
    async with opened(database) as other, asyncio.timeout(PATIENCE):
        both = await asyncio.gather(*(each.end_overdue(AT, due_at=DUE) for each in (ledger, other)))
    ids = [ended.workflow.id for half in both for ended in half]
    assert sorted(ids) == sorted(each.workflow.id for each in made)


async def test_a_signal_that_comes_too_late_and_a_node_that_could_not_begin_in_time_are_found(ledger: Ledger) -> None:
    made = await submitted(
        ledger,
        node("a"),
        node("yes", "a", kind=Kind.WAIT, expires=30.0),
        node("b", "a", job={"expires": NOW + 10}),
        node("later", "yes", kind=Kind.WAIT, expires=30.0),
    )
    assert [each.node for each in await ledger.expired_jobs(NOW + 15, limit=9)] == ["b"]
    await end(ledger, made, "a", at=NOW + 20)
    expires = (await current(ledger, made, "yes")).expires
    assert expires is not None
    found = await ledger.expired_jobs(expires + 1, limit=9)
    assert "yes" in [each.node for each in found]
    assert "later" not in [each.node for each in found]


class Told:
    """A link that keeps what it was told to revoke."""

    def __init__(self, *, connected: bool = True) -> None:
        self.connected = connected
        self.ids: list[str] = []

    async def revoke(self, ids: Sequence[str], *, terminate: bool) -> None:
        assert terminate
        self.ids += ids


@pytest.mark.parametrize("connected", [True, False])
async def test_the_coordinator_ends_what_is_overdue_and_tells_the_broker_or_leaves_it_to_the_relay(
    database: Database, ledger: Ledger, connected: bool
) -> None:
    made = await submitted(ledger, node("a"), node("b", "a"), timeout=50.0)
    await begin(ledger, made, "a")
    link = Told(connected=connected)
    coordinator = Coordinator(ledger, cast(Link, link), lease=4.0)
    await coordinator.end_overdue(NOW + 49)
    assert await state(ledger, made) == (State.STARTED, None)
    await coordinator.end_overdue(AT)
    assert await state(ledger, made) == (State.FAILURE, Reason.TIME_LIMIT)
    running = (await current(ledger, made, "a")).id
    assert link.ids == ([running] if connected else [])
    assert database.due()[running] == (None if connected else AT + 4)


async def test_the_coordinator_ends_a_wait_whose_signal_did_not_come_in_time(ledger: Ledger) -> None:
    made = await submitted(ledger, node("yes", kind=Kind.WAIT, expires=30.0), node("after", "yes"))
    expires = (await current(ledger, made, "yes")).expires
    assert expires is not None
    coordinator = Coordinator(ledger, cast(Link, Told()), lease=4.0)
    await coordinator.end_waits(expires - 0.1)
    assert (await current(ledger, made, "yes")).state is State.WAITING
    await coordinator.end_waits(expires)
    assert (await current(ledger, made, "yes")).reason == Reason.EXPIRED
    assert (await current(ledger, made, "after")).reason == Reason.UPSTREAM_FAILED
    assert await ledger.group_jobs(JobFilter(dead=True)) == []


async def test_what_a_signal_brings_is_the_result_of_its_node(ledger: Ledger) -> None:
    made = await submitted(ledger, node("yes", kind=Kind.WAIT), node("b", "yes", args=[{"$result": "yes"}]))
    signalled = await ledger.signal(made.workflow.id, "yes", {"by": "kim"}, AT)
    assert signalled == await current(ledger, made, "yes")
    assert (signalled.state, signalled.result, signalled.finished_at) == (State.SUCCESS, {"by": "kim"}, AT)
    begun = await current(ledger, made, "b")
    assert (begun.state, begun.args) == (State.ACCEPTED, [{"by": "kim"}])


@pytest.mark.parametrize("payload", [None, False, [1, "\x00"]])
async def test_a_signal_that_comes_early_is_kept(ledger: Ledger, payload: Any) -> None:
    made = await submitted(ledger, node("a"), node("yes", "a", kind=Kind.WAIT))
    early = await ledger.signal(made.workflow.id, "yes", payload, AT)
    assert early.state is State.WAITING
    with pytest.raises(JobEnded):
        await ledger.signal(made.workflow.id, "yes", "another", AT)
    await end(ledger, made, "a", at=AT + 1)
    ended = await current(ledger, made, "yes")
    assert (ended.state, ended.result) == (State.SUCCESS, payload)
    assert await state(ledger, made) == (State.SUCCESS, None)


async def test_a_signal_to_what_does_not_wait_for_one_is_refused(ledger: Ledger) -> None:
    made = await submitted(ledger, node("a"), node("yes", kind=Kind.WAIT))
    with pytest.raises(UnknownWorkflow):
        await ledger.signal("none", "yes", 1, AT)
    with pytest.raises(UnknownNode, match="none of that name"):
        await ledger.signal(made.workflow.id, "no", 1, AT)
    with pytest.raises(UnknownNode, match="waits for no signal"):
        await ledger.signal(made.workflow.id, "a", 1, AT)
    await ledger.signal(made.workflow.id, "yes", 1, AT)
    with pytest.raises(JobEnded, match="no further signal"):
        await ledger.signal(made.workflow.id, "yes", 2, AT)
    assert (await current(ledger, made, "yes")).result == 1


async def test_what_a_signal_begins_is_given_to_be_published(database: Database, ledger: Ledger) -> None:
    made = await submitted(ledger, node("yes", kind=Kind.WAIT), node("b", "yes"))
    given: list[Job] = []
    ledger.on_release = given.extend
    await ledger.signal(made.workflow.id, "yes", None, AT)
    begun = await current(ledger, made, "b")
    assert given == [begun]
    assert database.due()[begun.id] == AT + 4
