"""How jobs are listed and counted, on SQLite and on PostgreSQL."""

import random

import pytest

from dure.errors import InvalidCursor
from dure.job import DEAD, JobError, Reason, State
from dure.ledger import JobFilter, Ledger
from tests.conformance.ledgers import NOW, accepted, job, told

FILTERED = [
    job(1, tags=("red", "50%"), args=['say "hi"', "100% sure"]),
    job(2, task="t.mul", tags=("red",), kwargs={"name": "snake_case"}, state=State.SCHEDULED),
    job(3, queue="other", args=["back\\slash", "it's", "snakeXcase"]),
    job(4, args=["Große STRAẞE", "100 sure", "line\nbreak"]),
]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (JobFilter(), [5, 4, 3, 2, 1]),
        (JobFilter(state=State.SUCCESS), [5]),
        (JobFilter(state=State.ACCEPTED), [4, 3, 1]),
        (JobFilter(state=State.SCHEDULED), [2]),
        (JobFilter(task="t.mul"), [2]),
        (JobFilter(queue="other"), [3]),
        (JobFilter(worker="w@a"), [5]),
        (JobFilter(tag="red"), [2, 1]),
        (JobFilter(tag="50%"), [1]),
        (JobFilter(tag="re%"), []),
        (JobFilter(since=NOW + 2), [5, 4, 3, 2]),
        (JobFilter(until=NOW + 2), [1]),
        (JobFilter(since=NOW + 2, until=NOW + 4), [3, 2]),
        (JobFilter(since=-1e11, until=1e12), [5, 4, 3, 2, 1]),
        (JobFilter(text="100%"), [1]),
        (JobFilter(text="snake_case"), [2]),
        (JobFilter(text="SNAKE"), [3, 2]),
        (JobFilter(text="it's"), [3]),
        (JobFilter(text='say "hi"'), [1]),
        (JobFilter(text="back\\slash"), [3]),
        (JobFilter(text="line\nbreak"), [4]),
        (JobFilter(text="Große"), [4]),
        (JobFilter(text='"name"'), [2]),
        (JobFilter(text="foreign"), [5]),
        (JobFilter(text="'; DROP TABLE jobs; --"), []),
        (JobFilter(tag="red", task="t.add"), [1]),
        (JobFilter(state=State.ACCEPTED, queue="q", text="sure", since=NOW + 2, until=NOW + 5), [4]),
        (JobFilter(tag="red", state=State.SUCCESS), []),
    ],
)
async def test_a_filter_finds_what_it_says(ledger: Ledger, wanted: JobFilter, numbers: list[int]) -> None:
    await accepted(ledger, *FILTERED)
    foreign = told("x", State.SUCCESS, NOW + 5, args_repr="('foreign',)", result=1)
    await ledger.record([foreign])
    found = (await ledger.jobs(wanted)).jobs
    assert [int(each.created_at - NOW) for each in found] == numbers


@pytest.mark.parametrize("seed", range(3))
async def test_pages_stay_right_while_jobs_arrive_and_change(ledger: Ledger, seed: int) -> None:
    chance = random.Random(seed)
    ours = [job(n, tags=("mine",)) for n in range(chance.randint(5, 30))]
    for each in ours:
        await accepted(ledger, each, job(99))
    seen: list[str] = []
    cursor, pages = None, 0
    while True:
        page = await ledger.jobs(JobFilter(tag="mine"), cursor=cursor, limit=chance.randint(1, 7))
        seen += [each.id for each in page.jobs]
        cursor, pages = page.next, pages + 1
        if cursor is None:
            break
        await accepted(ledger, *(job(n, tags=("mine",)) for n in range(chance.randint(1, 3))))
        await ledger.record([told(chance.choice(ours).id, State.STARTED)])
    assert seen == [each.id for each in reversed(ours)]
    assert pages > 0


async def test_a_page_that_is_exactly_full_has_no_next_one(ledger: Ledger) -> None:
    await accepted(ledger, *(job(n) for n in range(4)))
    first = await ledger.jobs(JobFilter(), limit=2)
    assert first.next is not None
    second = await ledger.jobs(JobFilter(), cursor=first.next, limit=2)
    assert (len(second.jobs), second.next) == (2, None)


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "é", "\x00", "_" * 11, "A" * 10_000, "AAAAAAAAAAA\n", "=" * 12])
async def test_a_cursor_that_was_never_given_out_is_refused(ledger: Ledger, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await ledger.jobs(JobFilter(), cursor=cursor)


async def test_what_runs_now_is_told_by_worker(ledger: Ledger) -> None:
    await ledger.record([told("a", State.STARTED, task="t"), told("b", State.STARTED, worker="v@b")])
    await ledger.record([told("c", State.SUCCESS), told("d", State.QUEUED)])
    running = await ledger.running()
    assert {worker: [each.id for each in jobs] for worker, jobs in running.items()} == {"w@a": ["a"], "v@b": ["b"]}
    assert running["w@a"][0].started_at == NOW + 50


async def test_open_jobs_are_counted_by_state(ledger: Ledger) -> None:
    await accepted(ledger, job(1), job(2), job(3, state=State.SCHEDULED))
    await ledger.record([told("x", State.SUCCESS), told("y", State.FAILURE)])
    assert await ledger.count_open() == {State.ACCEPTED: 2, State.SCHEDULED: 1, State.FAILURE: 1}


# Jobs that failed, counted and grouped.

RAISED = JobError(type="E", message="m", fingerprint="abc")


async def failures(ledger: Ledger) -> None:
    """Ten jobs: two that succeeded or wait, two that raised, and six dead letters, of which one was sent again."""
    await accepted(ledger, *(job(n) for n in range(10)), job(10, task="t.mul"))
    ids = [each.id for each in await ledger.oldest_jobs(JobFilter(), limit=99)]
    raised = {"reason": Reason.ERROR, "error": RAISED}
    lost = {"reason": Reason.LOST, "error": JobError(type="dure.errors.Lost", message="m")}
    await ledger.record([told(ids[0], State.SUCCESS)])
    await ledger.record([told(ids[n], State.FAILURE, NOW + 50 + n, **raised) for n in (2, 3)])
    await ledger.record([told(ids[n], State.FAILURE, NOW + 50 - n, **lost) for n in (4, 5, 6)])
    await ledger.record([told(ids[n], State.FAILURE, NOW + n, reason=Reason.EXPIRED) for n in (7, 8, 10)])
    await ledger.record([told(ids[9], State.REVOKED, reason=Reason.EXPIRED)])
    await accepted(ledger, job(11, retry_of=ids[5]))


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (JobFilter(dead=True), [10, 8, 7, 6, 5, 4]),
        (JobFilter(dead=True, retried=False), [10, 8, 7, 6, 4]),
        (JobFilter(dead=True, retried=True), [5]),
        (JobFilter(retried=True), [5]),
        (JobFilter(retried=False, state=State.ACCEPTED), [11, 1]),
        (JobFilter(reason="expired"), [10, 9, 8, 7]),
        (JobFilter(reason="expired", dead=True, task="t.mul"), [10]),
        (JobFilter(fingerprint="abc"), [3, 2]),
        (JobFilter(fingerprint="abc", dead=True), []),
        (JobFilter(dead=True, state=State.SUCCESS), []),
        (JobFilter(dead=True, until=NOW + 5), [4]),
    ],
)
async def test_failures_are_found_counted_and_listed_from_either_end(
    ledger: Ledger, wanted: JobFilter, numbers: list[int]
) -> None:
    await failures(ledger)
    assert [int(each.created_at - NOW) for each in (await ledger.jobs(wanted)).jobs] == numbers
    assert await ledger.count_jobs(wanted) == len(numbers)
    for limit in (99, 2):
        oldest = [int(each.created_at - NOW) for each in await ledger.oldest_jobs(wanted, limit=limit)]
        assert oldest == numbers[::-1][:limit]


async def test_each_reason_that_is_dead_counts_as_dead(ledger: Ledger) -> None:
    await ledger.record([told(reason, State.FAILURE, reason=reason) for reason in Reason])
    assert {each.reason for each in await ledger.oldest_jobs(JobFilter(dead=True), limit=99)} == DEAD


async def test_jobs_that_ended_alike_are_one_group_the_largest_first(ledger: Ledger) -> None:
    await failures(ledger)
    groups = await ledger.group_jobs(JobFilter(state=State.FAILURE))
    assert [(each.task, each.reason, each.count) for each in groups] == [
        ("t.add", "lost", 3),
        ("t.add", "expired", 2),
        ("t.add", "error", 2),
        ("t.mul", "expired", 1),
    ]
    lost = groups[0]
    assert (lost.first_at, lost.last_at) == (NOW + 44, NOW + 46)
    assert int(lost.latest.created_at - NOW) == 6
    assert lost.latest == await ledger.job(lost.latest.id)
    assert groups[2].fingerprint == "abc"
    for group in groups:
        members = JobFilter(state=State.FAILURE, fingerprint=group.fingerprint, task=group.task, reason=group.reason)
        assert await ledger.count_jobs(members) == group.count
    assert await ledger.group_jobs(JobFilter(state=State.FAILURE), limit=2) == groups[:2]
    assert [each.count for each in await ledger.group_jobs(JobFilter(dead=True, retried=False))] == [2, 2, 1]
    assert await ledger.group_jobs(JobFilter(queue="nowhere")) == []
