"""What the sweeper asks ledgers for, and leases of those who publish."""

import asyncio

import pytest

from dure.job import Job, State
from dure.ledger import Ledger
from tests.conformance.ledgers import NOW, PATIENCE, Database, accepted, job, opened, told


def numbers(jobs: list[Job]) -> list[int]:
    return [int(each.created_at - NOW) for each in jobs]


async def test_open_jobs_with_a_message_are_silent_from_their_last_word_on(ledger: Ledger) -> None:
    jobs = [job(n) for n in range(7)]
    await accepted(ledger, *jobs)
    await ledger.mark_queued([each.id for each in jobs[1:]], NOW + 10)
    states = [State.STARTED, State.RETRY, State.SUCCESS, State.FAILURE]
    await ledger.record([told(jobs[n].id, state, NOW + 20) for n, state in enumerate(states, 2)])
    await ledger.request_cancel(jobs[6].id, NOW + 11, due_at=NOW + 15)

    assert numbers(await ledger.silent_jobs(NOW + 10, limit=9)) == []
    assert numbers(await ledger.silent_jobs(NOW + 11, limit=9)) == [1]
    assert numbers(await ledger.silent_jobs(NOW + 21, limit=9)) == [1, 2, 3]
    assert numbers(await ledger.silent_jobs(NOW + 21, limit=2)) == [1, 2]


async def test_a_job_that_was_asked_after_is_silent_again_when_that_was_long_ago(ledger: Ledger) -> None:
    jobs = [job(n) for n in range(3)]
    await accepted(ledger, *jobs)
    await ledger.mark_queued([each.id for each in jobs], NOW)
    await ledger.mark_checked([jobs[0].id, jobs[1].id, "nobody"], NOW + 30)
    assert numbers(await ledger.silent_jobs(NOW + 30, limit=9)) == [2]
    assert numbers(await ledger.silent_jobs(NOW + 31, limit=9)) == [0, 1, 2]
    assert await ledger.job(jobs[0].id) == (await ledger.some_jobs([jobs[0].id]))[jobs[0].id]


async def test_a_frontier_is_when_the_latest_that_runs_was_queued(ledger: Ledger) -> None:
    jobs = [job(n, queue=queue) for n, queue in enumerate(("a", "a", "a", "b", "c"))]
    await accepted(ledger, *jobs)
    for n, each in enumerate(jobs):
        await ledger.mark_queued([each.id], NOW + n)
    await ledger.record([told(jobs[n].id, State.STARTED) for n in (0, 1, 3)])
    await ledger.record([told(jobs[4].id, State.SUCCESS), told("foreign", State.STARTED)])
    assert await ledger.frontiers() == {"a": NOW + 1, "b": NOW + 3}


async def test_what_nobody_begun_in_its_time_has_expired(ledger: Ledger) -> None:
    scheduled = job(1, expires=NOW + 5, state=State.SCHEDULED, eta=NOW + 4)
    waiting, queued, received, run, cancelled, ended = (job(n, expires=NOW + 10 - n) for n in range(2, 8))
    await accepted(
        ledger, scheduled, waiting, queued, received, run, cancelled, ended, job(8), job(9, expires=NOW + 99)
    )
    await ledger.mark_queued([queued.id], NOW + 1)
    await ledger.record([told(received.id, State.QUEUED, delivery=True), told(run.id, State.STARTED)])
    await ledger.record([told(ended.id, State.FAILURE)])
    await ledger.request_cancel(cancelled.id, NOW, due_at=NOW)

    assert numbers(await ledger.expired_jobs(NOW + 5, limit=9)) == []
    assert numbers(await ledger.expired_jobs(NOW + 50, limit=9)) == [1, 4, 3, 2]  # the earliest first
    assert numbers(await ledger.expired_jobs(NOW + 50, limit=2)) == [1, 4]


async def test_a_retry_that_waits_does_not_expire(ledger: Ledger) -> None:
    ours = job(expires=NOW + 1)
    await accepted(ledger, ours)
    await ledger.record([told(ours.id, State.STARTED), told(ours.id, State.RETRY)])
    await ledger.record([told(ours.id, State.QUEUED, attempt=2, delivery=True)])
    assert await ledger.expired_jobs(NOW + 99, limit=9) == []


async def test_arguments_that_a_dead_letter_tells_are_filled_in_where_nobody_knew_them(ledger: Ledger) -> None:
    ours = job(args=[1], kwargs={})
    await accepted(ledger, ours)
    await ledger.record([told("foreign", State.FAILURE), told("bare", State.FAILURE)])
    value = [{"é": "\x00", "n": [None, 10**300]}]
    letters = {"foreign": (value, {"k": 1}), ours.id: ([9], {"x": 9}), "nobody": ([1], {})}
    await ledger.fill_arguments({name: (list(args), dict(kwargs)) for name, (args, kwargs) in letters.items()})
    found = await ledger.some_jobs(["foreign", ours.id, "bare", "nobody"])
    assert {name: (each.args, each.kwargs) for name, each in found.items()} == {
        "foreign": (value, {"k": 1}),
        ours.id: ([1], {}),
        "bare": (None, None),
    }
    await ledger.fill_arguments({"foreign": ([2], {})})
    filled = await ledger.job("foreign")
    assert filled is not None
    assert filled.args == value


# Leases.


async def test_a_claim_that_is_renewed_stays_its_owners_until_the_renewed_lease_ends(ledger: Ledger) -> None:
    ours, confirmed, other = job(1), job(2), job(3)
    await accepted(ledger, ours, confirmed, other)
    assert len(await ledger.claim_due(NOW, lease=4, limit=9)) == 3
    await ledger.mark_queued([confirmed.id], NOW + 1)
    await ledger.renew_due([ours.id, confirmed.id, "nobody"], NOW + 7)
    assert [each.id for each in await ledger.claim_due(NOW + 4, lease=4, limit=9)] == [other.id]
    assert await ledger.claim_due(NOW + 6.9, lease=4, limit=9) == []
    assert [each.id for each in await ledger.claim_due(NOW + 7, lease=4, limit=9)] == [ours.id]
    assert {each.id for each in await ledger.claim_due(NOW + 1e6, lease=4, limit=9)} == {other.id, ours.id}


@pytest.mark.parametrize("seconds", [0, 5])
async def test_what_is_due_is_taken_by_one_of_many_also_when_a_lease_has_ended(
    database: Database, ledger: Ledger, seconds: float
) -> None:
    jobs = [job(n) for n in range(40)]
    await accepted(ledger, *jobs)
    if seconds:
        assert len(await ledger.claim_due(NOW, lease=seconds, limit=99)) == 40
    async with opened(database) as other, asyncio.timeout(PATIENCE):
        claims = await asyncio.gather(
            *(each.claim_due(NOW + seconds, lease=4, limit=6) for each in (ledger, other) * 5)
        )
    claimed = [each.id for claim in claims for each in claim]
    assert sorted(claimed) == sorted(each.id for each in jobs)
