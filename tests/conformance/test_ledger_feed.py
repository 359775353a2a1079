"""What jobs tell while they run is kept once and in order, as much of it as may be, and read again from any place."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from dure.entry import Entry, EntryKind, Position, Told
from dure.job import Job, Reason, State
from dure.ledger import JobEntries, JobFilter, Ledger, Limits
from dure.workflow import Kind, Workflow
from tests.conformance.flow_shapes import FROM_A, chain, current, end, node, submitted
from tests.conformance.ledgers import NOW, PATIENCE, Database, accepted, counted, job, opened, told

RUN = 1_800_000_000_000_000


def said(job_id: str, first: int, last: int, *, run: int = RUN, text: str = "", **fields: Any) -> Told:
    return Told(job_id=job_id, run=run, entries=tuple(entry(n, run, text) for n in range(first, last + 1)), **fields)


def entry(n: int, run: int = RUN, text: str = "") -> Entry:
    return Entry(n=n, at=NOW + n / 100, kind=EntryKind.OUTPUT, body=f"{run - RUN}.{n}{text}")


def places(found: JobEntries) -> list[tuple[int, int]]:
    return [(each.run - RUN, entry.n) for each in found.told for entry in each.entries]


async def told_places(ledger: Ledger, job_id: str, **options: Any) -> list[tuple[int, int]]:
    found = await ledger.entries(job_id, **options)
    assert not found.more
    return places(found)


async def test_entries_are_read_as_they_were_told(ledger: Ledger) -> None:
    one = job()
    await accepted(ledger, one)
    entries = (
        Entry(n=1, at=NOW, kind=EntryKind.PROGRESS, body={"current": 1, "total": None, "message": "zero \0 and ☃"}),
        Entry(n=2, at=NOW + 0.25, kind=EntryKind.OUTPUT, body=["'", '"', "\\", {"a": None}]),
        Entry(n=3, at=NOW + 1, kind=EntryKind.LOG, body={"level": "info", "logger": "x", "message": "\n"}),
    )
    await ledger.record([], told=[Told(job_id=one.id, run=RUN, entries=entries, task="t.add", worker="w@a")])
    assert await ledger.entries(one.id) == JobEntries(told=(Told(job_id=one.id, run=RUN, entries=entries),))
    assert await ledger.entries("nobody") == JobEntries()
    assert await ledger.job(one.id) == one


async def test_entries_are_read_on_from_any_place(ledger: Ledger) -> None:
    one, other = job(1), job(2)
    await accepted(ledger, one, other)
    for first in (1, 4, 7):
        await ledger.record([], told=[said(one.id, first, first + 2), said(other.id, first, first + 2)])
    await ledger.record([], told=[said(one.id, 1, 2, run=RUN + 5)])
    everything = [(0, n) for n in range(1, 10)] + [(5, 1), (5, 2)]
    assert await told_places(ledger, one.id) == everything
    for number, (run, n) in enumerate(everything, 1):
        found = await ledger.entries(one.id, Position(RUN + run, n), limit=3)
        assert places(found) == everything[number:][:3]
        assert found.more is (len(everything) - number > 3)
    assert [each.run - RUN for each in (await ledger.entries(one.id)).told] == [0, 5]


async def test_what_is_told_again_is_kept_once(ledger: Ledger) -> None:
    one = job()
    await accepted(ledger, one)
    await ledger.record([], told=[said(one.id, 1, 4), said(one.id, 3, 6)])
    await ledger.record([], told=[said(one.id, 2, 9, text=" again")])
    await ledger.record([], told=[said(one.id, 1, 9, text=" again"), said(one.id, 1, 9, text=" again")])
    ((each,),) = [(await ledger.entries(one.id)).told]
    assert [entry.body for entry in each.entries] == [f"0.{n}" + " again" * (n > 6) for n in range(1, 10)]


async def test_what_another_recorder_writes_later_is_put_in_its_place(ledger: Ledger) -> None:
    one = job()
    await accepted(ledger, one)
    await ledger.record([], told=[said(one.id, 7, 9)])
    await ledger.record([], told=[said(one.id, 1, 2, run=RUN + 1), said(one.id, 1, 3)])
    assert await told_places(ledger, one.id) == [*((0, n) for n in (1, 2, 3, 7, 8, 9)), (1, 1), (1, 2)]
    await ledger.record([], told=[said(one.id, 2, 8)])
    assert await told_places(ledger, one.id) == [*((0, n) for n in range(1, 10)), (1, 1), (1, 2)]


async def test_a_job_that_nobody_knew_has_a_row_and_runs(ledger: Ledger) -> None:
    await ledger.record([], told=[said("new", 1, 2, task="t.far", worker="w@b"), said("new", 3, 3)], heard=True)
    found = await ledger.job("new")
    assert found is not None
    assert (found.state, found.task, found.worker, found.origin) == (State.STARTED, "t.far", "w@b", "celery")
    assert await told_places(ledger, "new") == [(0, 1), (0, 2), (0, 3)]
    await ledger.record([told("both", State.SUCCESS, attempt=0)], told=[said("both", 1, 1)])
    both = await ledger.job("both")
    assert both is not None
    assert (both.state, both.started_at) == (State.SUCCESS, None)


@pytest.mark.parametrize("limits", [Limits(entries=50), Limits(size=5000)], ids=["entries", "bytes"])
async def test_the_oldest_entries_go_and_the_feed_says_so(database: Database, limits: Limits) -> None:
    async with opened(database, kept=limits) as ledger:
        one, other = job(1), job(2)
        await accepted(ledger, one, other)
        await ledger.record([], told=[said(other.id, 1, 9)])
        for first in range(1, 500, 7):
            await ledger.record([], told=[said(one.id, first, first + 6, text="x" * 40)])
        last = 504
        found = await ledger.entries(one.id)
        kept = [n for _, n in places(found)]
        assert kept == list(range(kept[0], last + 1))
        assert found.dropped == last - len(kept)
        ((size,),) = database.rows(f"SELECT sum(size) FROM feed WHERE job_id = '{one.id}'")
        assert limits.entries * 0.7 < len(kept) <= limits.entries or limits.size * 0.7 < size <= limits.size

        middle = await ledger.entries(one.id, Position(RUN, 300))
        assert (places(middle), middle.dropped) == (places(found), kept[0] - 301)
        assert (await ledger.entries(one.id, Position(RUN, kept[0]))).dropped == 0
        await ledger.record([], told=[said(one.id, 1, last)])
        assert await ledger.entries(one.id) == found
        assert await told_places(ledger, other.id) == [(0, n) for n in range(1, 10)]


async def test_of_a_batch_that_is_too_much_by_itself_the_end_is_kept(database: Database) -> None:
    async with opened(database, kept=Limits(entries=20)) as ledger:
        one = job()
        await accepted(ledger, one)
        await ledger.record([], told=[said(one.id, 1, 100), said(one.id, 1, 3, run=RUN + 1)])
        found = await ledger.entries(one.id)
        kept = places(found)
        assert kept[-4:] == [(0, 100), (1, 1), (1, 2), (1, 3)]
        assert 14 <= len(kept) <= 20
        assert found.dropped == 103 - len(kept)
        assert (await ledger.entries(one.id, Position(RUN + 1, 1))).dropped == 0


async def test_a_later_attempt_pushes_out_what_an_earlier_one_told(database: Database) -> None:
    async with opened(database, kept=Limits(entries=10)) as ledger:
        one = job()
        await accepted(ledger, one)
        for run in range(6):
            await ledger.record([], told=[said(one.id, 1, 4, run=RUN + run)])
        found = await ledger.entries(one.id)
        assert places(found)[-8:] == [(run, n) for run in (4, 5) for n in range(1, 5)]
        assert found.dropped == 24 - len(places(found))
        assert (await ledger.entries(one.id, Position(RUN + 1, 2))).dropped == found.dropped - 6
        await ledger.record([], told=[said(one.id, 1, 9)])  # late: five of them are new, and gone already
        again = await ledger.entries(one.id)
        assert (again.told, again.dropped) == (found.told, found.dropped + 5)


async def test_what_is_old_goes(ledger: Ledger) -> None:
    one = job()
    await accepted(ledger, one)
    made = await chain(ledger)
    await ledger.record([], told=[said(one.id, 1, 5)], now=NOW)
    await ledger.record([], told=[said(one.id, 6, 8)], now=NOW + 100)
    assert await ledger.drop_old_feed(NOW) == 0
    assert await ledger.drop_old_feed(NOW + 50) == 2
    found = await ledger.entries(one.id)
    assert ([n for _, n in places(found)], found.dropped) == ([6, 7, 8], 5)
    assert await ledger.workflow_feed(made.workflow.id) == []
    await ledger.record([], told=[said(one.id, 1, 9)], now=NOW + 200)
    assert await told_places(ledger, one.id) == [(0, n) for n in (6, 7, 8, 9)]
    assert await ledger.drop_old_feed(NOW + 300, limit=1) == 1
    assert await told_places(ledger, one.id) == [(0, 9)]


async def log(ledger: Ledger, workflow_id: str, after: int = 0) -> list[Any]:
    found = await ledger.workflow_feed(workflow_id, after)
    assert [row.seq for row in found] == sorted({row.seq for row in found})
    return [
        (row.node, row.body["state"])
        if row.kind in ("state", "workflow")
        else (row.node, row.body["entries"] if row.kind == "dropped" else [n for n, *_ in row.body])
        for row in found
    ]


async def test_the_log_of_a_workflow_has_what_happens_in_its_order(ledger: Ledger) -> None:
    made = await chain(ledger)
    a = await current(ledger, made, "a")
    await ledger.record([told(a.id, State.STARTED)], told=[said(a.id, 1, 2)])
    await ledger.record([told(a.id, State.SUCCESS, result=1, has_result=True)], told=[said(a.id, 3, 3)])
    seen = (await ledger.workflow_feed(made.workflow.id))[-1].seq
    expected = [(None, "STARTED"), ("a", "STARTED"), ("a", [1, 2]), ("a", [3]), ("a", "SUCCESS"), ("b", "ACCEPTED")]
    assert await log(ledger, made.workflow.id) == expected
    await ledger.record([told(a.id, State.STARTED)], told=[said(a.id, 1, 3)])
    assert await log(ledger, made.workflow.id, seen) == []
    await end(ledger, made, "b", as_=State.FAILURE, reason=Reason.ERROR)
    assert await log(ledger, made.workflow.id, seen) == [("b", "FAILURE"), ("c", "FAILURE"), (None, "FAILURE")]
    (row, *_) = await ledger.workflow_feed(made.workflow.id, seen, limit=1)
    assert row.body == {"state": "FAILURE", "attempt": 1, "worker": "w@a", "reason": "error"}
    assert (row.job_id, row.at) == ((await current(ledger, made, "b")).id, NOW + 20)


async def test_the_log_says_where_entries_are_gone(database: Database) -> None:
    async with opened(database, kept=Limits(entries=10)) as ledger:
        made = await chain(ledger)
        a = await current(ledger, made, "a")
        for n in range(1, 15):
            await ledger.record([], told=[said(a.id, n, n)])
        rows = await ledger.workflow_feed(made.workflow.id)
        (place,) = [number for number, row in enumerate(rows) if row.kind == "dropped"]
        kept = [n for _, n in await told_places(ledger, a.id)]
        assert await log(ledger, made.workflow.id) == [
            (None, "STARTED"),
            ("a", 14 - len(kept)),
            *(("a", [n]) for n in kept),
        ]
        assert place == 1
        assert await log(ledger, made.workflow.id, rows[place].seq) == [("a", [n]) for n in kept]
        await ledger.record([], told=[said(a.id, 15, 60)])  # all that was written goes, and some that never is
        kept = [n for _, n in await told_places(ledger, a.id)]
        assert (await log(ledger, made.workflow.id))[:2] == [(None, "STARTED"), ("a", 60 - len(kept))]


async def test_what_is_done_to_a_workflow_is_in_its_log(ledger: Ledger) -> None:
    cancelled = await chain(ledger)
    await ledger.cancel_workflow(cancelled.workflow.id, NOW + 1, due_at=NOW + 5)
    assert await log(ledger, cancelled.workflow.id) == [
        (None, "STARTED"),
        *((name, "REVOKED") for name in "abc"),
        (None, "REVOKED"),
    ]
    late = await chain(ledger, timeout=5.0)
    a = await current(ledger, late, "a")
    await ledger.record([told(a.id, State.STARTED)])
    await ledger.end_overdue(NOW + 6, due_at=NOW + 9)
    assert (await log(ledger, late.workflow.id))[2:] == [(None, "FAILURE"), ("b", "REVOKED"), ("c", "REVOKED")]
    waits = await submitted(ledger, node("w", kind=Kind.WAIT), node("v", "w", kind=Kind.VALUE, args=[{"$result": "w"}]))
    await ledger.signal(waits.workflow.id, "w", 1, NOW + 2)
    assert (await log(ledger, waits.workflow.id))[1:] == [("w", "SUCCESS"), ("v", "SUCCESS"), (None, "SUCCESS")]
    await ledger.retry_workflow(waits.workflow.id, NOW + 3, node="v")
    assert (await log(ledger, waits.workflow.id))[4:] == [
        ("v", "WAITING"),
        (None, "STARTED"),
        ("v", "SUCCESS"),
        (None, "SUCCESS"),
    ]
    maps = await submitted(
        ledger, node("a"), node("m", "a", kind=Kind.MAP, args=FROM_A, body={"do": {"task": "t.each", "args": [5]}})
    )
    await end(ledger, maps, "a", result=[7], has_result=True)
    made_of_it = (await log(ledger, maps.workflow.id))[2:]
    assert made_of_it == [("m", "SUCCESS"), ("m.0", "ACCEPTED"), ("m", "WAITING")]
    single = await chain(ledger)
    await ledger.request_cancel((await current(ledger, single, "b")).id, NOW + 1, due_at=NOW + 5)
    assert (await log(ledger, single.workflow.id))[1:] == [("b", "REVOKED"), ("c", "FAILURE")]
    await ledger.fail_accepted((await current(ledger, single, "a")).id, Reason.REJECTED, "no queue", NOW + 2)
    assert (await log(ledger, single.workflow.id))[3:] == [("a", "FAILURE"), (None, "FAILURE")]


Changed = tuple[list[tuple[str, str]], list[str]]


async def noticed(ledger: Ledger, call: Callable[[], Coroutine[Any, Any, Any]]) -> list[Changed]:
    found: list[Changed] = []

    def notice(jobs: Sequence[Job], workflows: Sequence[Workflow]) -> None:
        its = [(each.node or each.id.partition("-")[0], each.state.value) for each in jobs]
        found.append((sorted(its), [each.state.value for each in workflows]))

    ledger.on_change = notice
    await call()
    ledger.on_change = None
    return found


async def test_who_waits_is_told_of_what_no_worker_tells(ledger: Ledger) -> None:
    one, other, third = job(1), job(2), job(3)
    await accepted(ledger, one, other, third)
    started, ended = told(one.id, State.STARTED), told(one.id, State.SUCCESS)
    assert await noticed(ledger, lambda: ledger.record([started], told=[said(one.id, 1, 2)], heard=True)) == []
    assert await noticed(ledger, lambda: ledger.mark_queued([other.id], NOW)) == []
    assert await noticed(ledger, lambda: ledger.request_cancel(one.id, NOW, due_at=NOW)) == [([("job", "STARTED")], [])]
    assert await noticed(ledger, lambda: ledger.record([ended], heard=True)) == []
    assert await noticed(ledger, lambda: ledger.record([told(other.id, State.FAILURE)])) == [([("job", "FAILURE")], [])]
    cancelled = await noticed(ledger, lambda: ledger.request_cancel(third.id, NOW, due_at=NOW))
    assert cancelled == [([("job", "REVOKED")], [])]


async def test_who_watches_a_workflow_is_told_when_its_log_has_more(ledger: Ledger) -> None:
    made = await chain(ledger)
    a = await current(ledger, made, "a")
    wrote = await noticed(ledger, lambda: ledger.record([], told=[said(a.id, 1, 2)], heard=True))
    assert wrote == [([("a", "ACCEPTED")], [])]
    assert await noticed(ledger, lambda: ledger.record([], told=[said(a.id, 1, 2)], heard=True)) == []
    failed = told(a.id, State.FAILURE, reason=Reason.ERROR)
    ended = await noticed(ledger, lambda: ledger.record([failed], told=[said(a.id, 3, 3)], heard=True))
    assert ended == [([(name, "FAILURE") for name in "abc"], ["FAILURE"])]


async def test_a_batch_in_which_nobody_tells_anything_asks_for_nothing_of_the_feed(ledger: Ledger) -> None:
    one = job()
    await accepted(ledger, one)
    with counted(ledger) as without:
        await ledger.record([told(one.id, State.STARTED), told(one.id, State.SUCCESS)], heard=True)
    with counted(ledger) as statements:
        await ledger.record([told(one.id, State.STARTED)], told=[said(one.id, 1, 500)], heard=True)
    assert not [each for each in without if "feed" in each]
    assert len([each for each in statements if "feed" in each]) == 3


async def test_jobs_that_changed_are_listed_by_when_they_did(ledger: Ledger) -> None:
    jobs = [job(number) for number in range(6)]
    await accepted(ledger, *jobs, job(9, task="t.other"))
    await ledger.record([told(jobs[1].id, State.STARTED, NOW + 40), told(jobs[0].id, State.SUCCESS, NOW + 30)])
    wanted = JobFilter(task="t.add")
    assert [each.id for each in await ledger.changed_jobs(wanted, NOW + 4, limit=9)] == [
        jobs[4].id,
        jobs[5].id,
        jobs[0].id,
        jobs[1].id,
    ]
    assert [each.id for each in await ledger.changed_jobs(wanted, NOW + 4, limit=2)] == [jobs[4].id, jobs[5].id]
    assert await ledger.changed_jobs(wanted, NOW + 41, limit=9) == []


async def test_who_reads_on_in_a_log_misses_nothing_of_several_recorders(database: Database) -> None:
    async with opened(database) as ledger, opened(database) as second, opened(database) as third:
        made = await submitted(ledger, *(node(f"n{number}") for number in range(8)))
        ids = [(await current(ledger, made, f"n{number}")).id for number in range(8)]
        seen: list[int] = []
        over = asyncio.Event()

        async def read() -> None:
            while True:
                was_over = over.is_set()
                rows = await ledger.workflow_feed(made.workflow.id, seen[-1] if seen else 0, limit=7)
                seen.extend(row.seq for row in rows)
                if was_over and not rows:
                    return

        async def write(recorder: Ledger, share: int) -> None:
            for n in range(1, 31):
                its = [said(job_id, max(1, n - 1), n) for job_id in ids[share::3]]  # no two wait for one job
                await recorder.record([], told=its, heard=True)

        async with asyncio.timeout(PATIENCE * 3):
            reading = asyncio.create_task(read())
            await asyncio.gather(*(write(each, share) for share, each in enumerate((ledger, second, third))))
            over.set()
            await reading
        assert seen == [row.seq for row in await ledger.workflow_feed(made.workflow.id, limit=9999)]
        for job_id in ids:
            assert await told_places(ledger, job_id) == [(0, n) for n in range(1, 31)]


async def test_what_several_recorders_are_told_at_once_is_kept_once(database: Database) -> None:
    async with opened(database) as ledger, opened(database) as second, opened(database) as third:
        jobs = [job(number) for number in range(4)]
        await accepted(ledger, *jobs)

        async def write(recorder: Ledger) -> None:
            for n in range(1, 21):
                await recorder.record([], told=[said(each.id, max(1, n - 2), n) for each in jobs], heard=True)

        async with asyncio.timeout(PATIENCE * 3):
            await asyncio.gather(*(write(each) for each in (ledger, second, third)))
        for each in jobs:
            assert await told_places(ledger, each.id) == [(0, n) for n in range(1, 21)]
