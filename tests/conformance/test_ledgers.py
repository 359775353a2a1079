"""What every ledger answers: one suite, on SQLite and on PostgreSQL."""

import asyncio
import random

import pytest
from msgspec import structs
from sqlalchemy.exc import IntegrityError

from dure.event import JobEvent, fold
from dure.job import Job, JobError, State
from dure.ledger import JobFilter, Ledger
from tests.conformance.ledgers import NOW, PATIENCE, Database, accepted, job, opened, told

HUGE = {"text": "é" * 300_000, "number": 10**300, "nul": "\x00", "deep": [[[[[None]]]]]}


async def test_a_job_is_read_as_it_was_accepted(ledger: Ledger) -> None:
    ours = job(
        args=[1, "é😀\x00\"'%", None, 1.5, 2**70, HUGE],
        kwargs={"\x00": {"b": 1, "a": 2}, "": []},
        tags=("a", "b%_"),
        priority=9,
        retries=3,
        time_limit=1.5,
        eta=NOW + 0.123456,
        expires=1e11,
    )
    await accepted(ledger, ours)
    assert await ledger.job(ours.id) == ours
    assert await ledger.some_jobs([ours.id, "nobody"]) == {ours.id: ours}
    assert await ledger.job("nobody") is None


async def test_jobs_are_accepted_all_or_none(ledger: Ledger) -> None:
    known, new = job(1), job(2)
    await accepted(ledger, known)
    with pytest.raises(IntegrityError):
        await accepted(ledger, new, structs.replace(known, args=["other"]))
    assert await ledger.job(new.id) is None
    assert await ledger.job(known.id) == known
    assert len((await ledger.jobs(JobFilter())).jobs) == 1


async def test_a_job_twice_in_one_batch_is_refused_whole(ledger: Ledger) -> None:
    ours = job()
    with pytest.raises(IntegrityError):
        await accepted(ledger, job(1), ours, ours)
    assert (await ledger.jobs(JobFilter())).jobs == ()


async def test_the_queues_of_what_was_accepted_are_remembered(ledger: Ledger) -> None:
    await accepted(ledger, job(queue="b"), job(queue="a"), job(queue="b"), job(queue=None))
    assert await ledger.queues() == ["a", "b"]


async def test_a_queue_is_remembered_though_the_first_commit_with_it_failed(database: Database, ledger: Ledger) -> None:
    database.execute("CREATE TABLE child (x varchar(255) REFERENCES jobs (id) DEFERRABLE INITIALLY DEFERRED)")
    if database.kind == "sqlite":
        database.execute("CREATE TRIGGER broken AFTER INSERT ON jobs BEGIN INSERT INTO child VALUES ('nobody'); END")
    else:
        database.execute("CREATE RULE broken AS ON INSERT TO jobs DO ALSO INSERT INTO child VALUES ('nobody')")
    with pytest.raises(IntegrityError):
        await accepted(ledger, job(queue="q"))
    assert await ledger.queues() == []
    database.execute("DROP TRIGGER broken" if database.kind == "sqlite" else "DROP RULE broken ON jobs")
    await accepted(ledger, job(queue="q"))
    assert await ledger.queues() == ["q"]


async def test_a_confirmed_job_is_queued_and_due_no_more(ledger: Ledger) -> None:
    ours, other = job(1), job(2)
    await accepted(ledger, ours, other)
    await ledger.mark_queued([ours.id, "nobody"], NOW + 1)
    found = await ledger.job(ours.id)
    assert found is not None
    assert (found.state, found.queued_at, found.changed_at) == (State.QUEUED, NOW + 1, NOW + 1)
    assert [due.id for due in await ledger.claim_due(NOW + 9, lease=5, limit=9)] == [other.id]


async def test_a_late_confirmation_takes_nothing_back(ledger: Ledger) -> None:
    ours = job()
    await accepted(ledger, ours)
    await ledger.record([told(ours.id, State.SUCCESS, result=5)])
    await ledger.mark_queued([ours.id], NOW + 99)
    found = await ledger.job(ours.id)
    assert found is not None
    assert (found.state, found.result, found.changed_at) == (State.SUCCESS, 5, NOW + 50)


async def test_a_message_that_nobody_takes_ends_its_job_unless_a_worker_has_it(ledger: Ledger) -> None:
    lost, run = job(1), job(2)
    await accepted(ledger, lost, run)
    await ledger.record([told(run.id, State.STARTED)])
    for each in (lost, run):
        await ledger.fail_accepted(each.id, "rejected", "no queue", NOW + 1)
    found = await ledger.some_jobs([lost.id, run.id])
    assert (found[lost.id].state, found[lost.id].reason, found[lost.id].finished_at) == (
        State.FAILURE,
        "rejected",
        NOW + 1,
    )
    assert found[lost.id].error == JobError(type="dure.errors.Unroutable", message="no queue")
    assert found[run.id].state is State.STARTED
    assert await ledger.next_due() == float("inf")


async def test_two_who_claim_at_once_get_each_row_once(database: Database, ledger: Ledger) -> None:
    jobs = [job(n) for n in range(60)]
    await accepted(ledger, *jobs)
    async with opened(database) as other, asyncio.timeout(PATIENCE):
        claims = await asyncio.gather(*(each.claim_due(NOW, lease=30, limit=10) for each in (ledger, other) * 4))
    claimed = [each.id for claim in claims for each in claim]
    assert sorted(claimed) == sorted({each.id for each in jobs})


async def test_a_claim_is_a_lease_that_ends(ledger: Ledger) -> None:
    ours = job()
    await accepted(ledger, ours, due=NOW + 1)
    assert await ledger.next_due() == NOW + 1
    assert await ledger.claim_due(NOW, lease=30, limit=9) == []
    assert len(await ledger.claim_due(NOW + 1, lease=30, limit=9)) == 1
    assert await ledger.next_due() == NOW + 31
    assert await ledger.claim_due(NOW + 30, lease=30, limit=9) == []
    assert await ledger.claim_due(NOW + 31, lease=30, limit=9) == [ours]


async def test_the_longest_due_are_claimed_first(ledger: Ledger) -> None:
    jobs = [job(n) for n in range(6)]
    await ledger.accept([(each, NOW - n) for n, each in enumerate(jobs)])
    first = await ledger.claim_due(NOW, lease=5, limit=2)
    assert {each.id for each in first} == {jobs[5].id, jobs[4].id}


def history(job_id: str, chance: random.Random) -> list[JobEvent]:
    """Everything that may be told of one job, some of it twice."""
    numbered = chance.random() < 0.6
    events = [told(job_id, State.QUEUED, NOW + 1, attempt=None, worker=None, queue="q2", task="t.x")]
    for attempt in range(1, chance.randint(1, 3) + 1):
        known = {"attempt": attempt if numbered else 0, "attempts": attempt, "worker": f"w{attempt}@a"}
        at = NOW + attempt * 10
        events.append(told(job_id, State.QUEUED, at, delivery=True, args_repr="(1,)", **known))
        events.append(told(job_id, State.STARTED, at + 1, **known))
        events.append(told(job_id, State.RETRY, at + 2, error=JobError(type="E", message="é\x00"), **known))
    last = {"attempt": events[-1].attempt, "worker": "w@a"}
    events.append(told(job_id, chance.choice([State.SUCCESS, State.FAILURE]), NOW + 60, result=[1], **last))
    events += chance.sample(events, 2)
    chance.shuffle(events)
    return events


@pytest.mark.parametrize("seed", [1, 2])
async def test_recorders_that_fold_the_same_jobs_at_once_lose_nothing_and_do_not_block(
    database: Database, ledger: Ledger, seed: int
) -> None:
    chance = random.Random(seed)
    ours = [job(n) for n in range(8)]
    await accepted(ledger, *ours)
    names = [each.id for each in ours] + [f"foreign-{seed}-{n}" for n in range(8)]
    events = [event for name in names for event in history(name, chance)]
    expected: dict[str, Job | None] = {each.id: each for each in ours}
    for event in events:
        expected[event.job_id] = fold(expected.get(event.job_id), event)
    chance.shuffle(events)
    batches = [events[start : start + 9] for start in range(0, len(events), 9)]

    async def recorder(which: Ledger, mine: list[list[JobEvent]]) -> None:
        for batch in mine:
            await which.record(batch)

    async with opened(database) as other, asyncio.timeout(PATIENCE):
        await asyncio.gather(
            recorder(ledger, batches),
            recorder(other, batches[::-1]),
            recorder(ledger, batches[1::2]),
            *(other.mark_queued([each.id for each in chance.sample(ours, 5)], NOW + 5) for _ in range(5)),
        )
    found = await ledger.some_jobs(names)
    for name in names:
        # The confirmations above are no events: they may set when the job was queued.
        assert structs.replace(found[name], queued_at=None) == structs.replace(expected[name], queued_at=None)


async def test_recording_again_changes_nothing_and_says_so(ledger: Ledger) -> None:
    ours = job()
    await accepted(ledger, ours)
    events = history(ours.id, random.Random(3))
    assert len(await ledger.record(events)) == 1
    before = await ledger.job(ours.id)
    assert await ledger.record(events) == []
    assert await ledger.job(ours.id) == before


async def test_jobs_that_plain_celery_sent_appear_with_what_was_told(ledger: Ledger) -> None:
    event = told("foreign", State.STARTED, attempt=0, task="t.mul", queue="theirs", args_repr="(1,)")
    await ledger.record([event])
    found = await ledger.job("foreign")
    assert found is not None
    assert (found.origin, found.task, found.args, found.args_repr) == ("celery", "t.mul", None, "(1,)")
    assert await ledger.queues() == ["theirs"]
    assert (await ledger.jobs(JobFilter(task="t.mul"))).jobs == (found,)


async def test_a_foreign_job_is_never_published_by_us(ledger: Ledger) -> None:
    await ledger.record([told("foreign", State.QUEUED, attempt=None)])
    assert await ledger.next_due() == float("inf")
    assert await ledger.claim_due(NOW + 1e6, lease=1, limit=9) == []


async def test_a_result_of_any_json_value_is_kept(ledger: Ledger) -> None:
    for n, result in enumerate([None, 0, False, "", "\x00", HUGE, [None], 10**300, -0.5]):
        await ledger.record([told(f"j{n}", State.SUCCESS, result=result)])
        found = await ledger.job(f"j{n}")
        assert found is not None
        assert (found.state, found.result) == (State.SUCCESS, result)
