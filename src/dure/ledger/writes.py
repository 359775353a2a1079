"""Every statement that changes the ledger. Each runs in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Update, and_, bindparam, case, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import TableClause

from dure.event import JobEvent, fold, unknown
from dure.job import Job, State
from dure.ledger import rows
from dure.ledger.tables import job_tags, jobs, queues, tasks, workers
from dure.node import Node
from dure.task import Task
from dure.wire import Heartbeat


def _insert(connection: AsyncConnection, table: Any) -> Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


async def insert_jobs(connection: AsyncConnection, batch: Sequence[tuple[Job, float]]) -> None:
    """New rows; each comes with the time from which the relay may publish it."""
    await connection.execute(jobs.insert(), [rows.submitted_row(job, due_at) for job, due_at in batch])
    tags = [{"job_id": job.id, "tag": tag} for job, _ in batch for tag in dict.fromkeys(job.tags)]
    if tags:
        await connection.execute(job_tags.insert(), tags)


async def insert_queues(connection: AsyncConnection, names: Iterable[str]) -> None:
    found = [{"name": name} for name in sorted(set(names))]
    if found:
        await connection.execute(_insert(connection, queues).on_conflict_do_nothing(), found)


async def mark_queued(connection: AsyncConnection, ids: Sequence[str], at: float) -> None:
    """The broker has confirmed these messages."""
    waiting = jobs.c.state.in_([State.ACCEPTED.value, State.SCHEDULED.value])
    # Locked in the order that folding locks in, so that the two cannot wait for each other.
    locked = select(jobs.c.id).where(jobs.c.id.in_(ids)).order_by(jobs.c.id).with_for_update()
    await connection.execute(
        update(jobs)
        .where(jobs.c.id.in_(locked.scalar_subquery()))
        .values(
            queued_at=case((jobs.c.queued_at < at, jobs.c.queued_at), else_=at),
            due_at=None,
            state=case((waiting, State.QUEUED.value), else_=jobs.c.state),
            changed_at=case((waiting, at), else_=jobs.c.changed_at),
        )
    )


async def fail_accepted(connection: AsyncConnection, job_id: str, reason: str, message: str, at: float) -> None:
    """A job whose message can never be published ends here; one that a worker already has is left alone."""
    error = rows.encode_error("dure.errors.Unroutable", message)
    await connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.attempt.is_(None))
        .values(state=State.FAILURE.value, reason=reason, error=error, due_at=None, finished_at=at, changed_at=at)
    )


async def claim_due(connection: AsyncConnection, now: float, lease: float, limit: int) -> list[Job]:
    """Rows to publish now. They become due again after `lease` seconds, unless they are confirmed before."""
    due = select(jobs.c.id).where(jobs.c.due_at <= now).order_by(jobs.c.due_at).limit(limit)
    if connection.dialect.name == "postgresql":
        due = due.with_for_update(skip_locked=True)
    result = await connection.execute(
        update(jobs).where(jobs.c.id.in_(due.scalar_subquery())).values(due_at=now + lease).returning(*jobs.c)
    )
    return [rows.read_job(row) for row in result.mappings()]


async def insert_unknown(connection: AsyncConnection, events: Sequence[JobEvent]) -> None:
    """Blank rows for jobs that plain Celery code sent, in a transaction of their own.

    Were they inserted while other rows are locked, two recorders could wait for each other.
    """
    first: dict[str, JobEvent] = {}
    for event in events:
        first.setdefault(event.job_id, event)
    known = set(await connection.scalars(select(jobs.c.id).where(jobs.c.id.in_(list(first)))))
    blank = [rows.job_row(unknown(first[job_id])) for job_id in sorted(first.keys() - known)]
    if blank:
        await connection.execute(_insert(connection, jobs).on_conflict_do_nothing(), blank)


async def fold_events(connection: AsyncConnection, events: Sequence[JobEvent]) -> list[Job]:
    """Fold a batch into its rows, which are there and are locked meanwhile; returns those that changed."""
    by_job: dict[str, list[JobEvent]] = {}
    for event in events:
        by_job.setdefault(event.job_id, []).append(event)
    known = await _locked(connection, by_job)
    changed = []
    for job_id, before in known.items():
        job = before
        for event in by_job[job_id]:
            job = fold(job, event)
        if job != before:
            changed.append(job)
    if changed:
        await connection.execute(_FOLD, [rows.folded_row(job) for job in changed])
    return changed


def _fold_statement() -> Update:
    values: dict[str, Any] = {name: bindparam(name) for name in rows.FOLDED}
    return update(jobs).where(jobs.c.id == bindparam("key")).values(**values, due_at=None)


_FOLD = _fold_statement()


async def _locked(connection: AsyncConnection, ids: Iterable[str]) -> dict[str, Job]:
    found = await connection.execute(select(jobs).where(jobs.c.id.in_(list(ids))).order_by(jobs.c.id).with_for_update())
    return {row["id"]: rows.read_job(row) for row in found.mappings()}


async def upsert_tasks(connection: AsyncConnection, announced: Sequence[Task]) -> None:
    """The latest word on each task; a name alone never replaces a schema."""
    if not announced:
        return
    insert = _insert(connection, tasks)
    told = insert.excluded
    newer = and_(
        told.announced_at >= tasks.c.announced_at,
        or_(told.arguments.is_not(None), tasks.c.arguments.is_(None)),
    )
    await connection.execute(
        insert.on_conflict_do_update(index_elements=["name"], set_=_excluded(tasks, told, "name"), where=newer),
        [rows.task_row(task) for task in sorted(announced, key=lambda task: task.name)],
    )


async def upsert_workers(
    connection: AsyncConnection, announced: Sequence[Node], heartbeats: Sequence[Heartbeat]
) -> None:
    """What workers tell of themselves, in any order: the latest beat says whether one is online, the latest
    announcement what it is, and what only an older one told is kept."""
    told = [rows.node_row(node, announced=True) for node in announced]
    told += [rows.node_row(_beating(beat), announced=False) for beat in heartbeats]
    if told:
        told.sort(key=lambda row: row["hostname"])
        insert = _insert(connection, workers)
        await connection.execute(
            insert.on_conflict_do_update(index_elements=["hostname"], set_=_merged(insert.excluded)), told
        )


def _merged(told: Any) -> dict[str, Any]:
    known = workers.c
    beats = told.heartbeat_at >= known.heartbeat_at
    announces = told.announced_at >= func.coalesce(known.announced_at, 0.0)
    starts = told.started_at > func.coalesce(known.started_at, 0.0)

    def latest(name: str, is_newer: Any) -> Any:
        return case((is_newer, func.coalesce(told[name], known[name])), else_=func.coalesce(known[name], told[name]))

    return {
        "online": case((beats, told.online), else_=known.online),
        "heartbeat_at": case((beats, told.heartbeat_at), else_=known.heartbeat_at),
        "pid": latest("pid", beats),
        "software": latest("software", beats),  # a stock worker may take the name that one of ours had
        "processed": latest("processed", beats),
        "started_at": latest("started_at", starts),
        "queues": case((announces, told.queues), else_=known.queues),
        **{name: latest(name, announces) for name in ("pool", "concurrency", "announced_at")},
    }


def _beating(beat: Heartbeat) -> Node:
    return Node(
        hostname=beat.hostname,
        online=beat.online,
        software=beat.software,
        pid=beat.pid,
        processed=beat.processed,
        heartbeat_at=beat.at,
        started_at=beat.at if beat.started else None,
    )


def _excluded(table: TableClause | Any, told: Any, key: str) -> dict[str, Any]:
    return {column.name: told[column.name] for column in table.c if column.name != key}
