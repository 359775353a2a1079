"""Every statement that changes the ledger. Each runs in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
            queued_at=func.coalesce(jobs.c.queued_at, at),
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


async def fold_events(connection: AsyncConnection, events: Sequence[JobEvent]) -> list[Job]:
    """Fold a batch into its rows, which are locked meanwhile; returns the rows that changed."""
    by_job: dict[str, list[JobEvent]] = {}
    for event in events:
        by_job.setdefault(event.job_id, []).append(event)
    known = await _locked(connection, by_job)
    unseen = [job_id for job_id in by_job if job_id not in known]
    if unseen:
        # Another recorder may be inserting the same rows; whoever is second finds them here.
        blank = [rows.job_row(unknown(by_job[job_id][0])) for job_id in sorted(unseen)]
        await connection.execute(_insert(connection, jobs).on_conflict_do_nothing(), blank)
        known |= await _locked(connection, unseen)
    changed = []
    for job_id, job_events in by_job.items():
        job = known[job_id]
        for event in job_events:
            job = fold(job, event)
        if job != known[job_id]:
            changed.append(job)
    if changed:
        await connection.execute(_FOLD, [rows.folded_row(job) for job in sorted(changed, key=lambda job: job.id)])
    await insert_queues(connection, (job.queue for job in changed if job.queue and job.origin != "dure"))
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


async def upsert_workers(connection: AsyncConnection, nodes: Sequence[Node]) -> None:
    if not nodes:
        return
    insert = _insert(connection, workers)
    told = insert.excluded
    kept = {
        name: func.coalesce(told[name], workers.c[name])
        for name in ("pool", "concurrency", "software", "pid", "processed", "started_at")
    }
    await connection.execute(
        insert.on_conflict_do_update(
            index_elements=["hostname"],
            set_=kept | {"online": told.online, "queues": told.queues, "heartbeat_at": told.heartbeat_at},
            where=told.heartbeat_at >= workers.c.heartbeat_at,
        ),
        [rows.node_row(node) for node in sorted(nodes, key=lambda node: node.hostname)],
    )


async def fold_heartbeats(connection: AsyncConnection, beats: Sequence[Heartbeat]) -> None:
    """The latest beat of each worker; an older one changes nothing."""
    latest: dict[str, Heartbeat] = {}
    for beat in beats:
        if beat.hostname not in latest or beat.at >= latest[beat.hostname].at:
            latest[beat.hostname] = beat
    if not latest:
        return
    insert = _insert(connection, workers)
    told = insert.excluded
    await connection.execute(
        insert.on_conflict_do_update(
            index_elements=["hostname"],
            set_={
                "online": told.online,
                "heartbeat_at": told.heartbeat_at,
                "pid": func.coalesce(told.pid, workers.c.pid),
                "software": func.coalesce(workers.c.software, told.software),
                "processed": func.coalesce(told.processed, workers.c.processed),
                "started_at": func.coalesce(told.started_at, workers.c.started_at),
            },
            where=told.heartbeat_at >= workers.c.heartbeat_at,
        ),
        [_beat_row(latest[hostname]) for hostname in sorted(latest)],
    )


def _beat_row(beat: Heartbeat) -> Mapping[str, Any]:
    return rows.node_row(
        Node(
            hostname=beat.hostname,
            online=beat.online,
            software=beat.software,
            pid=beat.pid,
            processed=beat.processed,
            heartbeat_at=beat.at,
            started_at=beat.at if beat.started else None,
        )
    )


def _excluded(table: TableClause | Any, told: Any, key: str) -> dict[str, Any]:
    return {column.name: told[column.name] for column in table.c if column.name != key}
