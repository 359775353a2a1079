"""Cancelling, whatever else is done to the job meanwhile."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from dure.errors import JobEnded
from dure.job import Job, Reason, State
from dure.ledger import Ledger
from tests.conformance.ledgers import NOW, PATIENCE, Database, accepted, job, opened, told

AT = NOW + 20
DUE = AT + 4
LATE = NOW + 1e6

Step = Callable[[Ledger, str], Awaitable[object]]

# What may happen to a job around its cancellation, without a worker that ends it.
STEPS: dict[str, Step] = {
    "cancel": lambda ledger, name: ledger.request_cancel(name, AT, due_at=DUE),
    "claim": lambda ledger, _: ledger.claim_due(NOW + 1, lease=30, limit=9),
    "confirm": lambda ledger, name: ledger.mark_queued([name], NOW + 5),
    "receive": lambda ledger, name: ledger.record([told(name, State.QUEUED, delivery=True)]),
    "refuse": lambda ledger, name: ledger.fail_accepted(name, "rejected", "no queue", NOW + 6),
    "renew": lambda ledger, name: ledger.renew_due([name], DUE + 1),
    "check": lambda ledger, name: ledger.mark_checked([name], NOW + 7),
}


async def found(ledger: Ledger, job_id: str) -> Job:
    job = await ledger.job(job_id)
    assert job is not None
    return job


@pytest.mark.parametrize("words", [[], [State.QUEUED], [State.STARTED, State.RETRY]])
async def test_a_job_that_nobody_runs_is_revoked_at_once(ledger: Ledger, words: list[State]) -> None:
    ours = job()
    await accepted(ledger, ours)
    for word in words:
        await ledger.record([told(ours.id, word, delivery=word is State.QUEUED)])
    cancelled = await ledger.request_cancel(ours.id, AT, due_at=DUE)
    assert cancelled == await found(ledger, ours.id)
    assert (cancelled.state, cancelled.reason, cancelled.finished_at) == (State.REVOKED, Reason.REVOKED, AT)
    assert (cancelled.cancel_requested_at, cancelled.changed_at) == (AT, AT)


async def test_a_job_that_runs_goes_on_and_is_asked_to_end(ledger: Ledger) -> None:
    ours = job()
    await accepted(ledger, ours)
    await ledger.record([told(ours.id, State.STARTED)])
    cancelled = await ledger.request_cancel(ours.id, AT, due_at=DUE)
    assert cancelled == await found(ledger, ours.id)
    assert (cancelled.state, cancelled.worker, cancelled.cancel_requested_at) == (State.STARTED, "w@a", AT)
    assert await ledger.next_due() == DUE


async def test_an_unknown_job_is_none_and_one_that_has_ended_is_refused(ledger: Ledger) -> None:
    assert await ledger.request_cancel("nobody", AT, due_at=DUE) is None
    for state in (State.SUCCESS, State.FAILURE):
        ours = job()
        await accepted(ledger, ours)
        await ledger.record([told(ours.id, state)])
        before = await found(ledger, ours.id)
        with pytest.raises(JobEnded) as caught:
            await ledger.request_cancel(ours.id, AT, due_at=DUE)
        assert caught.value.job == before == await found(ledger, ours.id)
    assert await ledger.next_due() == float("inf")


@pytest.mark.parametrize("word", [None, State.STARTED])
async def test_cancelling_twice_changes_nothing(ledger: Ledger, word: State | None) -> None:
    ours = job()
    await accepted(ledger, ours)
    if word:
        await ledger.record([told(ours.id, word)])
    first = await ledger.request_cancel(ours.id, AT, due_at=DUE)
    await ledger.mark_revoked([ours.id])
    assert await ledger.request_cancel(ours.id, AT + 9, due_at=DUE + 9) == first == await found(ledger, ours.id)
    assert await ledger.next_due() == float("inf")


async def test_a_foreign_job_can_be_cancelled(ledger: Ledger) -> None:
    await ledger.record([told("foreign", State.QUEUED, attempt=None, worker=None)])
    cancelled = await ledger.request_cancel("foreign", AT, due_at=DUE)
    assert cancelled is not None
    assert cancelled.state is State.REVOKED
    assert [due.id for due in await ledger.claim_due(DUE, lease=4, limit=9)] == ["foreign"]


async def test_a_scheduled_job_that_no_relay_has_taken_needs_no_word_to_the_broker(ledger: Ledger) -> None:
    untouched, taken = (job(n, state=State.SCHEDULED, eta=NOW + n) for n in (30, 1))
    await ledger.accept([(each, each.eta or 0) for each in (untouched, taken)])
    assert len(await ledger.claim_due(NOW + 1, lease=4, limit=9)) == 1
    for each in (untouched, taken):
        cancelled = await ledger.request_cancel(each.id, AT, due_at=DUE)
        assert cancelled is not None
        assert cancelled.state is State.REVOKED
    assert [due.id for due in await ledger.claim_due(LATE, lease=4, limit=9)] == [taken.id]


@pytest.mark.parametrize("order", [*itertools.permutations(["cancel", "claim", "confirm", "receive"])], ids="-".join)
async def test_a_cancellation_is_due_until_the_broker_keeps_it_whatever_comes_between(
    database: Database, ledger: Ledger, order: tuple[str, ...]
) -> None:
    ours = job()
    await accepted(ledger, ours)
    for step in order:
        await STEPS[step](ledger, ours.id)
    cancelled = await found(ledger, ours.id)
    assert (cancelled.state, cancelled.cancel_requested_at) == (State.REVOKED, AT)
    assert database.due()[ours.id] == DUE
    await ledger.mark_revoked([ours.id])
    assert database.due()[ours.id] is None


@pytest.mark.parametrize("step", [name for name in STEPS if name != "cancel"])
@pytest.mark.parametrize("begun", [False, True])
async def test_nothing_but_the_broker_or_the_end_clears_a_cancellation(ledger: Ledger, step: str, begun: bool) -> None:
    ours = job()
    await accepted(ledger, ours)
    if begun:
        await ledger.record([told(ours.id, State.STARTED)])
    await STEPS["cancel"](ledger, ours.id)
    await STEPS[step](ledger, ours.id)
    cancelled = await found(ledger, ours.id)
    assert cancelled.state is (State.STARTED if begun else State.REVOKED)
    assert cancelled.reason == (None if begun else Reason.REVOKED)
    (due,) = await ledger.claim_due(LATE, lease=4, limit=9)
    assert (due.id, due.cancel_requested_at) == (ours.id, AT)


@pytest.mark.parametrize("end", [State.SUCCESS, State.FAILURE, State.REVOKED])
async def test_a_job_that_runs_ends_as_its_worker_says_and_its_cancellation_with_it(ledger: Ledger, end: State) -> None:
    ours = job()
    await accepted(ledger, ours)
    await ledger.record([told(ours.id, State.STARTED)])
    await ledger.request_cancel(ours.id, AT, due_at=DUE)
    reason = Reason.TERMINATED if end is State.REVOKED else None
    await ledger.record([told(ours.id, end, AT + 1, reason=reason)])
    ended = await found(ledger, ours.id)
    assert (ended.state, ended.reason, ended.worker, ended.cancel_requested_at) == (end, reason, "w@a", AT)
    assert await ledger.next_due() == float("inf")


@pytest.mark.parametrize("end", [State.SUCCESS, State.FAILURE])
async def test_a_worker_that_ran_a_revoked_job_to_its_end_is_believed(ledger: Ledger, end: State) -> None:
    ours = job()
    await accepted(ledger, ours)
    await ledger.request_cancel(ours.id, AT, due_at=DUE)
    await ledger.record([told(ours.id, State.STARTED)])
    assert (await found(ledger, ours.id)).state is State.REVOKED
    assert await ledger.next_due() == DUE
    await ledger.record([told(ours.id, end, result=3 if end is State.SUCCESS else None)])
    ended = await found(ledger, ours.id)
    assert (ended.state, ended.reason, ended.cancel_requested_at) == (end, None, AT)
    assert await ledger.next_due() == float("inf")


async def test_only_cancelled_jobs_are_marked_as_told(ledger: Ledger) -> None:
    cancelled, waiting = job(1), job(2)
    await accepted(ledger, cancelled, waiting)
    await ledger.request_cancel(cancelled.id, AT, due_at=DUE)
    await ledger.mark_revoked([waiting.id, cancelled.id, "nobody"])
    assert [due.id for due in await ledger.claim_due(LATE, lease=4, limit=9)] == [waiting.id]


async def test_stock_workers_are_told_of_the_latest_that_nobody_had_begun(ledger: Ledger) -> None:
    jobs = [job(n) for n in range(6)]
    await accepted(ledger, *jobs)
    await ledger.record([told(jobs[0].id, State.STARTED), told(jobs[1].id, State.REVOKED)])
    for each in (jobs[0], *jobs[2:5]):
        await ledger.request_cancel(each.id, AT, due_at=DUE)
    assert await ledger.cancelled_ids(limit=9) == [jobs[4].id, jobs[3].id, jobs[2].id]
    assert await ledger.cancelled_ids(limit=2) == [jobs[4].id, jobs[3].id]


async def test_at_once_with_everything_else_nothing_waits_for_ever_and_no_cancellation_is_lost(
    database: Database, ledger: Ledger
) -> None:
    jobs = [job(n) for n in range(30)]
    names = [each.id for each in jobs]
    await accepted(ledger, *jobs)
    async with opened(database) as other, asyncio.timeout(PATIENCE):

        async def cancel() -> None:
            for name in names[::2]:
                await other.request_cancel(name, AT, due_at=DUE)

        for _ in range(2):
            await asyncio.gather(
                cancel(),
                *(which.mark_queued(names[::step], NOW + 5) for which in (ledger, other) for step in (1, -1)),
                *(which.renew_due(names[::step], DUE) for which in (ledger, other) for step in (-1, 1)),
                *(which.mark_checked(names[::step], NOW) for which in (ledger, other) for step in (-1, 1)),
                *(which.mark_revoked(names[1::2][::step]) for which in (ledger, other) for step in (-1, 1)),
                *(which.claim_due(NOW + 1, lease=3, limit=7) for which in (ledger, other)),
                *(
                    which.record([told(name, State.QUEUED, delivery=True) for name in names[::step]])
                    for which in (ledger, other)
                    for step in (1, -1)
                ),
            )
    due = database.due()
    assert all(due[name] is not None for name in names[::2])
    assert {due[name] for name in names[1::2]} == {None}
    found = await ledger.some_jobs(names)
    assert {found[name].state for name in names[::2]} == {State.REVOKED}
    assert {found[name].state for name in names[1::2]} == {State.QUEUED}
