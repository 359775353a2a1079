"""Idempotency keys and unique keys: whatever comes twice, or at once, there is one job."""

import asyncio
from typing import Any

import psycopg
import pytest
from msgspec import structs
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from dure.errors import IdempotencyConflict
from dure.job import State, Unique, Until
from dure.ledger import JobFilter, Ledger, Receipt
from dure.ledger.keys import Outcome
from tests.conformance.ledger_processes import names, submitted_at_once
from tests.conformance.ledgers import NOW, PATIENCE, Database, accepted, job, opened, told, wanted

FINISHED = Unique(key="k")
STARTED = Unique(key="k", until=Until.STARTED)
TIMED = Unique(key="k", until=Until.TIME, expires_at=NOW + 10)


def receipt(outcome: Outcome) -> Receipt:
    assert isinstance(outcome, Receipt)
    return outcome


async def count(ledger: Ledger) -> int:
    return await ledger.count_jobs(JobFilter())


# Idempotency keys.


async def test_a_request_made_again_is_answered_with_its_first_jobs_as_they_are_now(ledger: Ledger) -> None:
    first = [job(1), job(2)]
    (made,) = await ledger.accept_once([wanted(*first, key="k")], NOW)
    assert made == Receipt(jobs=tuple(first), created=frozenset(each.id for each in first))
    await ledger.record([told(first[1].id, State.SUCCESS, result=7)])

    (again,) = await ledger.accept_once([wanted(job(1), job(2), key="k")], NOW + 99)

    assert receipt(again).replayed
    assert receipt(again).created == frozenset()
    assert names(receipt(again)) == tuple(each.id for each in first)
    assert (receipt(again).jobs[1].state, receipt(again).jobs[1].result) == (State.SUCCESS, 7)
    assert await count(ledger) == 2


async def test_a_key_with_another_request_is_a_conflict_and_keeps_nothing(ledger: Ledger) -> None:
    ours, other, theirs = job(1), job(2), job(3, queue="theirs")
    await ledger.accept_once([wanted(ours, key="k")], NOW)
    outcomes = await ledger.accept_once([wanted(theirs, key="k", print_="other"), wanted(other, key="l")], NOW)
    assert isinstance(outcomes[0], IdempotencyConflict)
    assert outcomes[0].key == "k"
    assert names(receipt(outcomes[1])) == (other.id,)
    assert await ledger.job(theirs.id) is None
    (again,) = await ledger.accept_once([wanted(job(), key="k")], NOW)
    assert names(receipt(again)) == (ours.id,)


async def test_a_conflict_takes_no_unique_key(ledger: Ledger) -> None:
    await ledger.accept_once([wanted(job(), key="k")], NOW)
    await ledger.accept_once([wanted(job(), key="k", print_="other", unique=FINISHED)], NOW)
    free = job()
    (made,) = await ledger.accept_once([wanted(free, unique=FINISHED)], NOW)
    assert names(receipt(made)) == (free.id,)


async def test_a_key_is_forgotten_at_its_time(ledger: Ledger) -> None:
    first, second, third = job(1), job(2), job(3)
    await ledger.accept_once([wanted(first, key="k", until=NOW + 5)], NOW)
    (before,) = await ledger.accept_once([wanted(second, key="k")], NOW + 4.9)
    assert names(receipt(before)) == (first.id,)
    (after,) = await ledger.accept_once([wanted(second, key="k", print_="other", until=NOW + 10)], NOW + 5)
    assert names(receipt(after)) == (second.id,)
    (last,) = await ledger.accept_once([wanted(third, key="k", print_="other")], NOW + 6)
    assert names(receipt(last)) == (second.id,)


async def test_one_batch_may_hold_the_same_request_twice_and_another_with_its_key(ledger: Ledger) -> None:
    first = job()
    requests = [wanted(first, key="k"), wanted(job(), key="k"), wanted(job(), key="k", print_="other")]
    outcomes = await ledger.accept_once(requests, NOW)
    assert [names(receipt(each)) for each in outcomes[:2]] == [(first.id,)] * 2
    assert [receipt(each).replayed for each in outcomes[:2]] == [False, True]
    assert isinstance(outcomes[2], IdempotencyConflict)
    assert await count(ledger) == 1


async def test_a_commit_that_failed_leaves_no_key_behind(ledger: Ledger) -> None:
    known, new = job(1), job(2)
    await accepted(ledger, known)
    with pytest.raises(IntegrityError):
        await ledger.accept_once([wanted(structs.replace(known, args=[]), new, key="k", unique=FINISHED)], NOW)
    for request in (wanted(job(), key="k", print_="other"), wanted(job(), unique=FINISHED)):
        (made,) = await ledger.accept_once([request], NOW)
        assert receipt(made).created
    assert await ledger.job(new.id) is None


async def test_requests_with_and_without_keys_share_a_batch(ledger: Ledger) -> None:
    plain, keyed, unique = job(1), job(2), job(3)
    outcomes = await ledger.accept_once([wanted(plain), wanted(keyed, key="k"), wanted(unique, unique=FINISHED)], NOW)
    assert [names(receipt(each)) for each in outcomes] == [(plain.id,), (keyed.id,), (unique.id,)]
    assert await ledger.queues() == ["q"]
    assert len(await ledger.claim_due(NOW, lease=5, limit=9)) == 3


# Unique keys.


async def holds(ledger: Ledger, unique: Unique = FINISHED, now: float = NOW) -> str | None:
    """The id of the job that a second one finds in its way."""
    second = job()
    (outcome,) = await ledger.accept_once([wanted(second, unique=unique)], now)
    (found,) = receipt(outcome).jobs
    assert receipt(outcome).created == (frozenset({second.id}) if found.id == second.id else frozenset())
    return None if found.id == second.id else found.id


WORDS: dict[str, dict[str, Any]] = {
    "received": {"state": State.QUEUED, "delivery": True},
    "started": {"state": State.STARTED},
    "retried": {"state": State.RETRY},
    "succeeded": {"state": State.SUCCESS},
    "failed": {"state": State.FAILURE},
    "revoked": {"state": State.REVOKED},
}


@pytest.mark.parametrize(
    ("unique", "words", "held"),
    [
        (FINISHED, [], True),
        (FINISHED, ["received"], True),
        (FINISHED, ["started"], True),
        (FINISHED, ["started", "retried"], True),
        (FINISHED, ["succeeded"], False),
        (FINISHED, ["failed"], False),
        (FINISHED, ["revoked"], False),
        (STARTED, [], True),
        (STARTED, ["received"], True),
        (STARTED, ["started"], False),
        (STARTED, ["started", "retried"], False),
        (STARTED, ["succeeded"], False),  # whose start was not told
        (TIMED, [], True),
        (TIMED, ["started", "succeeded"], True),
    ],
)
async def test_a_key_is_held_as_long_as_its_scope_says(
    ledger: Ledger, unique: Unique, words: list[str], held: bool
) -> None:
    first = job()
    await ledger.accept_once([wanted(first, unique=unique)], NOW)
    for word in words:
        await ledger.record([told(first.id, **WORDS[word])])
    assert await holds(ledger) == (first.id if held else None)


async def test_a_timed_key_is_free_at_its_time(ledger: Ledger) -> None:
    first = job()
    await ledger.accept_once([wanted(first, unique=TIMED)], NOW)
    assert await holds(ledger, TIMED, NOW + 9.9) == first.id
    assert await holds(ledger, TIMED, NOW + 10) is None


@pytest.mark.parametrize("unique", [FINISHED, STARTED])
async def test_a_holder_that_will_not_run_lets_the_next_through(ledger: Ledger, unique: Unique) -> None:
    cancelled, refused = job(1), job(2)
    await ledger.accept_once([wanted(cancelled, unique=unique)], NOW)
    await ledger.request_cancel(cancelled.id, NOW, due_at=NOW)
    (made,) = await ledger.accept_once([wanted(refused, unique=unique)], NOW)
    assert names(receipt(made)) == (refused.id,)
    await ledger.fail_accepted(refused.id, "rejected", "no queue", NOW)
    assert await holds(ledger, unique) is None


async def test_the_next_holder_holds_by_its_own_scope(ledger: Ledger) -> None:
    first, second = job(1), job(2)
    await ledger.accept_once([wanted(first, unique=STARTED)], NOW)
    await ledger.record([told(first.id, State.STARTED)])
    await ledger.accept_once([wanted(second, unique=FINISHED)], NOW)
    await ledger.record([told(second.id, State.STARTED)])
    assert await holds(ledger) == second.id
    await ledger.record([told(second.id, State.SUCCESS)])
    assert await holds(ledger) is None


async def test_a_key_of_a_job_that_is_gone_is_free(database: Database, ledger: Ledger) -> None:
    await ledger.accept_once([wanted(job(), unique=FINISHED)], NOW)
    database.execute("DELETE FROM jobs")
    assert await holds(ledger) is None


async def test_holder_and_second_in_one_batch_or_one_request_are_one_job(ledger: Ledger) -> None:
    first, second, third, free = job(1), job(2), job(3), job(4)
    requests = [wanted(first, second, unique=FINISHED), wanted(third, unique=FINISHED), wanted(free)]
    outcomes = [receipt(each) for each in await ledger.accept_once(requests, NOW)]
    assert [names(each) for each in outcomes] == [(first.id, first.id), (first.id,), (free.id,)]
    assert [each.created for each in outcomes] == [{first.id}, set(), {free.id}]
    assert await count(ledger) == 2


async def test_of_several_jobs_one_that_is_held_is_answered_by_its_holder_and_the_others_are_made(
    ledger: Ledger,
) -> None:
    holder = job(1)
    await ledger.accept_once([wanted(holder, unique=FINISHED)], NOW)
    before, held, after = job(2), job(3), job(4)
    request = structs.replace(wanted(before, held, after, key="i"), unique={held.id: FINISHED})
    (made,) = await ledger.accept_once([request], NOW)
    assert names(receipt(made)) == (before.id, holder.id, after.id)
    assert receipt(made).created == {before.id, after.id}
    assert await ledger.job(held.id) is None

    await ledger.record([told(holder.id, State.SUCCESS)])  # so the key is free, yet the answer stays
    (again,) = await ledger.accept_once([wanted(job(), job(), job(), key="i")], NOW)
    assert names(receipt(again)) == (before.id, holder.id, after.id)


async def test_a_request_that_was_answered_by_a_holder_is_answered_so_in_the_same_batch(ledger: Ledger) -> None:
    holder = job(1)
    requests = [
        wanted(holder, unique=FINISHED),
        wanted(job(2), key="i", unique=FINISHED),
        wanted(job(3), key="i", unique=FINISHED),
    ]
    outcomes = [receipt(each) for each in await ledger.accept_once(requests, NOW)]
    assert [(names(each), each.replayed) for each in outcomes] == [
        ((holder.id,), False),
        ((holder.id,), False),
        ((holder.id,), True),
    ]


# Forgetting.


async def test_keys_whose_time_is_over_are_dropped_and_others_stay(database: Database, ledger: Ledger) -> None:
    for n in range(5):
        await ledger.accept_once([wanted(job(n), key=f"i{n}", until=NOW + n)], NOW - 1)
        timed = Unique(key=f"u{n}", until=Until.TIME, expires_at=NOW + n)
        await ledger.accept_once([wanted(job(n), unique=timed)], NOW - 1)
    await ledger.accept_once([wanted(job(), unique=Unique(key="open"))], NOW)
    over = job()
    await ledger.accept_once([wanted(over, unique=Unique(key="over"))], NOW)
    await ledger.record([told(over.id, State.SUCCESS)])
    await ledger.drop_expired_keys(NOW + 3, limit=2)
    while await ledger.drop_expired_keys(NOW + 3, limit=2):
        pass
    assert database.rows("SELECT key FROM idempotency_keys ORDER BY key") == [("i4",)]
    assert database.rows("SELECT key FROM unique_keys ORDER BY key") == [("open",), ("u4",)]
    assert await count(ledger) == 12


@pytest.mark.parametrize("database", ["postgres"], indirect=True)  # SQLite has one writer at a time
async def test_a_key_that_is_being_looked_at_is_not_dropped(database: Database, ledger: Ledger) -> None:
    first, second = job(1), job(2)
    await ledger.accept_once([wanted(first, key="i", until=NOW + 1, unique=TIMED)], NOW)
    tries = []

    def drop(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("SELECT unique_keys"):
            with psycopg.connect(database.url, autocommit=True) as session:
                session.execute("SET lock_timeout = '50ms'")
                for table in ("idempotency_keys", "unique_keys"):
                    with pytest.raises(psycopg.errors.LockNotAvailable):
                        session.execute(f"DELETE FROM {table}".encode())
                    tries.append(table)

    event.listen(ledger._engines.write.sync_engine, "before_cursor_execute", drop)
    (made,) = await ledger.accept_once([wanted(second, key="i", until=NOW + 60, unique=TIMED)], NOW + 20)
    assert names(receipt(made)) == (second.id,)
    assert tries == ["idempotency_keys", "unique_keys"]


# At once.


async def test_tasks_of_several_ledgers_that_use_one_key_at_once_make_one_job(database: Database) -> None:
    async with opened(database) as one, opened(database) as two, opened(database) as three:
        requests = [
            wanted(job(n), job(n), key=f"k{n % 4}", print_="other" if n % 5 == 0 else "same") for n in range(60)
        ]
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(
                *((one, two, three)[n % 3].accept_once([request], NOW) for n, request in enumerate(requests))
            )
        assert await count(one) == 8
    for number in range(4):
        mine = [(requests[n].idempotency, answers[n][0]) for n in range(number, 60, 4)]
        made = {names(each) for _, each in mine if isinstance(each, Receipt)}
        winner = {key.fingerprint for key, each in mine if key and isinstance(each, Receipt)}
        loser = {key.fingerprint for key, each in mine if key and isinstance(each, IdempotencyConflict)}
        assert len(made) == len(winner) == len(loser) == 1
        assert winner != loser


async def test_tasks_of_several_ledgers_that_want_one_unique_key_at_once_make_one_job(database: Database) -> None:
    async with opened(database) as one, opened(database) as two:
        # Batches name the keys in different orders, which must not make them wait for each other.
        batches = [
            [wanted(job(), unique=Unique(key=f"u{(n * step) % 7}")) for n in range(7)]
            for step in (1, 2, 3, 4, 5, 6) * 4
        ]
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(
                *((one, two)[n % 2].accept_once(batch, NOW) for n, batch in enumerate(batches))
            )
        assert await count(one) == 7
    holders: dict[str, set[tuple[str, ...]]] = {}
    for batch, outcomes in zip(batches, answers, strict=True):
        for request, outcome in zip(batch, outcomes, strict=True):
            (unique,) = request.unique.values()
            holders.setdefault(unique.key, set()).add(names(receipt(outcome)))
    assert [len(found) for found in holders.values()] == [1] * 7


async def test_when_a_holder_has_ended_one_of_many_takes_its_place(database: Database, ledger: Ledger) -> None:
    async with opened(database) as other:
        for _ in range(5):
            async with asyncio.timeout(PATIENCE):
                outcomes = await asyncio.gather(
                    *(each.accept_once([wanted(job(), unique=FINISHED)], NOW) for each in (ledger, other) * 6)
                )
            (holder,) = {names(receipt(outcome)) for (outcome,) in outcomes}
            assert sum(len(receipt(outcome).created) for (outcome,) in outcomes) == 1
            await ledger.record([told(holder[0], State.SUCCESS)])
        assert await count(ledger) == 5


def test_processes_that_use_the_same_keys_at_once_make_one_job_of_each(database: Database) -> None:
    shares = [
        [wanted(job(n), key=f"k{n}", unique=Unique(key=f"u{n % 10}")) for n in order]
        for order in (range(20), range(20), range(19, -1, -1))
    ]
    answers = submitted_at_once(database.url, shares)
    answers[2].reverse()
    assert answers[0] == answers[1] == answers[2]
    assert database.rows("SELECT count(*) FROM jobs") == [(10,)]
    assert {found for found in answers[0] if found} == {(i,) for (i,) in database.rows("SELECT id FROM jobs")}
