"""What can be watched, read again: the entries of a job, the log of a workflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.entry import Entry, Position, Told
from dure.job import Job
from dure.ledger import rows
from dure.ledger.feed_changes import RowKind
from dure.ledger.feed_entries import marks_of
from dure.ledger.reads import JobFilter, filtered
from dure.ledger.tables import feed, jobs


class JobEntries(Struct, frozen=True, kw_only=True):
    """Entries of one job in their order; `dropped` is how many are gone that stood before the first of them, and
    behind what was asked for. With `more` there are others behind these. `last` is the place of the last one of all,
    where a worker has told it; `complete` says that the job has ended, and that there will be no others."""

    told: tuple[Told, ...] = ()
    dropped: int = 0
    more: bool = False
    last: Position = Position()
    complete: bool = False


class FeedRow(Struct, frozen=True, kw_only=True):
    """A row of a workflow's log. `body` by kind:

    - `state`: of the node `node` the `state`, `attempt`, `worker` and `reason`;
    - `entries`: those that the node told, each as an array of `n`, `at`, `kind` and `body`;
    - `dropped`: how many `entries` of the node are gone by now, of those that stood here or before;
    - `workflow`: the `state` and `reason` of the workflow; `job_id` and `node` are None.
    """

    seq: int
    job_id: str | None
    node: str | None
    kind: RowKind
    at: float
    body: Any


async def entries(connection: AsyncConnection, job_id: str, after: Position, limit: int) -> JobEntries:
    place = or_(feed.c.run > after.run, and_(feed.c.run == after.run, feed.c.last > after.n))
    its = (feed.c.job_id == job_id, feed.c.kind == RowKind.ENTRIES.value)
    query = select(feed.c.run, feed.c.body).where(*its, place).order_by(feed.c.run, feed.c.last).limit(limit + 1)
    found = [
        (run, entry)
        for run, body in await connection.execute(query)
        for entry in _entries(body)
        if Position(run, entry.n) > after
    ]
    told = tuple(_in_runs(job_id, found[:limit]))
    # Asked for last: what is dropped in between may have been read already, and is not counted then.
    marks = await marks_of(connection, job_id)
    dropped = marks.dropped_between(after, told[0].first if told else None)
    more = len(found) > limit
    # By now the marks may know of more than was read.
    complete = marks.is_complete and not more and len(found) + dropped == marks.count_above(after)
    last = max(marks.lasts, default=Position())
    return JobEntries(told=told, dropped=dropped, more=more, last=last, complete=complete)


def _in_runs(job_id: str, found: Sequence[tuple[int, Entry]]) -> list[Told]:
    """Together as far as they have no gap."""
    runs: list[tuple[int, list[Entry]]] = []
    for run, entry in found:
        if runs and runs[-1][0] == run and runs[-1][1][-1].n + 1 == entry.n:
            runs[-1][1].append(entry)
        else:
            runs.append((run, [entry]))
    return [Told(job_id=job_id, run=run, entries=tuple(each)) for run, each in runs]


async def workflow_rows(connection: AsyncConnection, workflow_id: str, after: int, limit: int) -> list[FeedRow]:
    wanted = select(feed, jobs.c.node).join(jobs, jobs.c.id == feed.c.job_id, isouter=True)
    query = wanted.where(feed.c.workflow_id == workflow_id, feed.c.seq > after).order_by(feed.c.seq).limit(limit)
    return [
        FeedRow(
            seq=row["seq"],
            job_id=row["job_id"],
            node=row["node"],
            kind=RowKind(row["kind"]),
            at=row["at"],
            body=msgspec.json.decode(row["body"]),
        )
        for row in (await connection.execute(query)).mappings()
    ]


def _entries(body: str) -> tuple[Entry, ...]:
    return msgspec.json.decode(body, type=tuple[Entry, ...])


async def changed_jobs(connection: AsyncConnection, wanted: JobFilter, since: float, limit: int) -> list[Job]:
    query = filtered(select(jobs), wanted).where(jobs.c.changed_at >= since)
    found = await connection.execute(query.order_by(jobs.c.changed_at, jobs.c.seq).limit(limit))
    return [rows.read_job(row) for row in found.mappings()]
