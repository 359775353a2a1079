"""Writing down what attempts told, each entry once, and dropping what is too much or too old.

Whoever writes or drops entries of a job has locked its row before, in the order in which all others lock, so `Marks`
are read as they are. Where something of a node is dropped, the last row that goes stays in the workflow's log and says
so: a reader who comes from before it learns of it, and one who has read further does not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Select, bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.entry import Position, Told
from dure.event import JobEvent
from dure.job import Job, State
from dure.ledger.bulk import Row, among, among_listed, among_numbers, listed, put_rows
from dure.ledger.feed_changes import RowKind, feed_row
from dure.ledger.feed_marks import Limits, Marks, Range, Segment, entries_by_job, segments_of, surplus
from dure.ledger.tables import feed, feed_marks, jobs
from dure.ledger.writes import Strange

_ENTRIES = feed.c.kind == RowKind.ENTRIES.value


class Taken(Struct, frozen=True):
    """Rows to insert, and the jobs that they are of, by what is read of these."""

    rows: list[Row]
    tellers: list[Job]


async def take(
    connection: AsyncConnection, told: Sequence[Told], events: Sequence[JobEvent], now: float, limits: Limits
) -> Taken:
    """Lock the jobs of both; what is new of what was told, as far as it may be kept. Raises Strange."""
    by_job = entries_by_job(told)
    known = await _lock(connection, by_job.keys() | {event.job_id for event in events})
    if strange := by_job.keys() - known.keys():
        raise Strange(strange)
    marks = await _marks(connection, by_job.keys() | {event.job_id for event in events if event.told})
    fresh = {job_id: segments_of(marks[job_id].unknown(its), limits) for job_id, its in by_job.items()}
    fresh = {job_id: segments for job_id, segments in fresh.items() if segments}
    after = {job_id: marks[job_id].with_told(segments) for job_id, segments in fresh.items()}
    gone = await _find_surplus(connection, after, fresh, limits)
    after |= {job_id: after[job_id].without(segments) for job_id, segments in gone.items()}
    rows = await _drop(connection, {job_id: (known[job_id], after[job_id], its) for job_id, its in gone.items()}, now)
    await _mark(connection, after | _with_lasts(marks | after, events))
    for job_id, segments in fresh.items():
        dropped = {each.range for each in gone.get(job_id, ())}
        rows += [_row(known[job_id], each, now) for each in segments if each.range not in dropped]
    return Taken(rows, [known[job_id] for job_id in fresh])


def _with_lasts(marks: Mapping[str, Marks], events: Sequence[JobEvent]) -> dict[str, Marks]:
    """Those in which that is new."""
    found: dict[str, Marks] = {}
    for event in events:
        if event.told is not None:
            before = found.get(event.job_id) or marks[event.job_id]
            after = before.with_last(event.told, ended=event.state.final)
            if after != before:
                found[event.job_id] = after
    return found


def implied(told: Sequence[Told], strange: Collection[str], events: Sequence[JobEvent]) -> list[JobEvent]:
    """What entries say of jobs that no event has spoken of: somebody runs them."""
    silent = set(strange) - {event.job_id for event in events}
    first = {each.job_id: each for each in sorted(told, key=lambda each: each.first, reverse=True)}
    return [
        JobEvent(
            job_id=job_id,
            state=State.STARTED,
            at=each.entries[0].at,
            attempt=0,
            worker=each.worker,
            task=each.task,
            root_id=each.root_id,
        )
        for job_id, each in first.items()
        if job_id in silent
    ]


async def drop_before(connection: AsyncConnection, before: float, now: float, limit: int) -> int:
    """Drop some of what was written before; returns how many rows."""
    old = feed.c.at < before
    query = select(feed.c.job_id, feed.c.run, feed.c.last).where(_ENTRIES, old).order_by(feed.c.seq).limit(limit)
    last: dict[str, Position] = {}
    for job_id, run, n in await connection.execute(query):
        last[job_id] = max(last.get(job_id, Position()), Position(run, n))
    count = 0
    if last:
        known = await _lock(connection, last)
        marks = await _marks(connection, known)
        kept = await _segments(connection, known)
        gone = {job_id: [each for each in kept.get(job_id, ()) if each.range.end <= last[job_id]] for job_id in known}
        after = {job_id: marks[job_id].without(segments) for job_id, segments in gone.items()}
        await _drop(connection, {job_id: (known[job_id], after[job_id], its) for job_id, its in gone.items()}, now)
        await _mark(connection, after)
        count = sum(map(len, gone.values()))
    # Rows that somebody else drops are left to them: waiting for each other, two could wait for ever.
    states = (
        select(feed.c.seq).where(~_ENTRIES, old).order_by(feed.c.seq).limit(limit).with_for_update(skip_locked=True)
    )
    return count + (await connection.execute(delete(feed).where(feed.c.seq.in_(states.scalar_subquery())))).rowcount


async def is_there(connection: AsyncConnection, before: float) -> bool:
    """Whether there is something to drop."""
    return (await connection.execute(select(feed.c.seq).where(feed.c.at < before).limit(1))).first() is not None


async def marks_of(connection: AsyncConnection, job_id: str) -> Marks:
    return (await _marks(connection, [job_id]))[job_id]


async def _lock(connection: AsyncConnection, ids: Collection[str]) -> dict[str, Job]:
    """Of each its place and state, no more."""
    found = (await connection.execute(_lock_of(connection.dialect.name), listed(ids))).mappings()
    return {row["id"]: Job(**row | {"state": State(row["state"])}) for row in map(dict, found)}


@cache
def _lock_of(dialect: str) -> Select[Any]:
    names = ("id", "task", "state", "root_id", "workflow_id", "node")
    wanted = select(*(jobs.c[name] for name in names)).where(among_listed(dialect, jobs.c.id))
    return wanted.order_by(jobs.c.id).with_for_update()


async def _marks(connection: AsyncConnection, ids: Collection[str]) -> dict[str, Marks]:
    found = await connection.execute(_marks_of(connection.dialect.name), listed(ids))
    known = {job_id: msgspec.json.decode(marks, type=Marks) for job_id, marks in found}
    return {job_id: known.get(job_id) or Marks() for job_id in ids}


@cache
def _marks_of(dialect: str) -> Select[Any]:
    return select(feed_marks).where(among_listed(dialect, feed_marks.c.job_id))


async def _mark(connection: AsyncConnection, marks: Mapping[str, Marks]) -> None:
    told = [{"job_id": job_id, "marks": msgspec.json.encode(each).decode()} for job_id, each in marks.items()]
    await put_rows(connection, feed_marks, "job_id", told)


async def _find_surplus(
    connection: AsyncConnection, marks: Mapping[str, Marks], fresh: Mapping[str, list[Segment]], limits: Limits
) -> dict[str, list[Segment]]:
    over = [job_id for job_id, each in marks.items() if each.is_over(limits)]
    kept = await _segments(connection, over)
    found = {}
    for job_id, segments in fresh.items():
        gone = surplus(marks[job_id], [*kept.get(job_id, ()), *segments], limits)
        if gone:
            found[job_id] = gone
    return found


async def _segments(connection: AsyncConnection, ids: Collection[str]) -> dict[str, list[Segment]]:
    """Those that are kept of these."""
    if not ids:
        return {}
    names = ("job_id", "seq", "run", "first", "last", "size")
    query = select(*(feed.c[name] for name in names)).where(_ENTRIES, among(connection, feed.c.job_id, ids))
    found: dict[str, list[Segment]] = {}
    for job_id, seq, run, first, last, size in await connection.execute(query):
        found.setdefault(job_id, []).append(Segment(range=Range(run, first, last), size=size, seq=seq))
    return found


async def _drop(
    connection: AsyncConnection, gone: Mapping[str, tuple[Job, Marks, list[Segment]]], now: float
) -> list[Row]:
    """Returns the rows that say so where no written row is left to."""
    stays: dict[str, int] = {}
    seqs: list[int] = []
    rows: list[Row] = []
    for job_id, (job, marks, segments) in gone.items():
        written = [each.seq for each in sorted(segments, key=lambda each: each.range) if each.seq is not None]
        if job.workflow_id is not None and written:
            stays[job_id] = written.pop()
        elif job.workflow_id is not None and segments:
            rows.append(feed_row(RowKind.DROPPED, job.workflow_id, job_id, now, _said(marks)))
        seqs += written
    nodes = [job_id for job_id, (job, _, segments) in gone.items() if job.workflow_id is not None and segments]
    if nodes:  # one row says it for all that went before
        said = (feed.c.kind == RowKind.DROPPED.value, among(connection, feed.c.job_id, nodes))
        await connection.execute(delete(feed).where(*said))
    if seqs:
        await connection.execute(delete(feed).where(among_numbers(connection, feed.c.seq, seqs)))
    if stays:
        values = {"kind": RowKind.DROPPED.value, "at": now, "size": 0, "body": bindparam("said")}
        told = [{"of": seq, "said": _said(gone[job_id][1])} for job_id, seq in stays.items()]
        await connection.execute(update(feed).where(feed.c.seq == bindparam("of")).values(**values), told)
    return rows


def _said(marks: Marks) -> str:
    return msgspec.json.encode({"entries": marks.dropped}).decode()


def _row(job: Job, segment: Segment, now: float) -> Row:
    run, first, last = segment.range
    place = {"run": run, "first": first, "last": last, "size": segment.size}
    return feed_row(RowKind.ENTRIES, job.workflow_id, job.id, now, segment.body or "[]", **place)
