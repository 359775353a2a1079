"""Every statement that changes the ledger. Each runs in the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from msgspec import structs
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Double,
    Update,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import TableClause

from dure.errors import JobEnded
from dure.event import JobEvent, unknown
from dure.job import Job, Reason, State
from dure.ledger import feed_changes, rows
from dure.ledger.bulk import among_listed, insert_rows, listed
from dure.ledger.tables import edges, job_tags, jobs, queues, tasks, workers, workflows
from dure.node import Node
from dure.task import Task
from dure.wire import Heartbeat
from dure.workflow import Edge, Flow, NewNode

# What a record tells of the attempt that its state comes from.
OF_AN_ATTEMPT = ("attempt", "worker", "result", "result_repr", "error", "fingerprint", "runtime")


def upsert(connection: AsyncConnection, table: Any) -> Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


async def insert_jobs(connection: AsyncConnection, batch: Sequence[tuple[Job, float]]) -> None:
    """New rows; each comes with the time from which the relay may publish it."""
    await connection.execute(jobs.insert(), [rows.submitted_row(job, due_at) for job, due_at in batch])
    tags = _tag_rows(job for job, _ in batch)
    if tags:
        await connection.execute(job_tags.insert(), tags)


async def insert_flows(connection: AsyncConnection, flows: Sequence[Flow]) -> None:
    """New workflows with all of their rows."""
    await connection.execute(
        workflows.insert(),
        [rows.workflow_row(flow.workflow, sum(not n.job.state.final for n in flow.nodes)) for flow in flows],
    )
    await _insert_nodes(
        connection, [n for flow in flows for n in flow.nodes], [e for flow in flows for e in flow.edges]
    )
    for flow in flows:  # which stands for its nodes: as they are submitted they have no news
        feed_changes.of(connection).workflow(flow.workflow, flow.workflow.created_at)


async def insert_nodes(connection: AsyncConnection, nodes: Sequence[NewNode], needs: Sequence[Edge]) -> None:
    """Nodes that a workflow has more."""
    await _insert_nodes(connection, nodes, needs)
    feed_changes.of(connection).states(node.job for node in nodes)


async def _insert_nodes(connection: AsyncConnection, nodes: Sequence[NewNode], needs: Sequence[Edge]) -> None:
    await insert_rows(connection, jobs, [rows.node_row(node) for node in nodes])
    await insert_rows(connection, job_tags, _tag_rows(node.job for node in nodes))
    await insert_rows(connection, edges, [rows.edge_row(edge) for edge in needs])


def _tag_rows(tagged: Iterable[Job]) -> list[dict[str, Any]]:
    return [{"job_id": job.id, "tag": tag} for job in tagged for tag in dict.fromkeys(job.tags)]


async def insert_queues(connection: AsyncConnection, names: Iterable[str]) -> None:
    found = [{"name": name} for name in sorted(set(names))]
    if found:
        await connection.execute(upsert(connection, queues).on_conflict_do_nothing(), found)


async def mark_queued(connection: AsyncConnection, ids: Sequence[str], at: float) -> None:
    """The broker has confirmed these messages. Of what a worker has spoken of already that is known."""
    await connection.execute(_mark_queued(connection.dialect.name), listed(ids) | {"at": at})


@cache
def _mark_queued(dialect: str) -> Update:
    at: BindParameter[float] = bindparam("at", type_=Double())
    waiting = jobs.c.state.in_([State.ACCEPTED.value, State.SCHEDULED.value])
    return (
        update(jobs)
        .where(in_order(among_listed(dialect, jobs.c.id), jobs.c.due_at.is_not(None)))
        .values(
            queued_at=case((jobs.c.queued_at < at, jobs.c.queued_at), else_=at),
            # A cancelled job's due time is that of its cancellation.
            due_at=case((jobs.c.cancel_requested_at.is_not(None), jobs.c.due_at), else_=None),
            state=case((waiting, State.QUEUED.value), else_=jobs.c.state),
            changed_at=case((waiting, at), else_=jobs.c.changed_at),
        )
    )


def in_order(*wanted: ColumnElement[bool]) -> ColumnElement[bool]:
    """These jobs, locked in the order that folding locks in, so that no two transactions wait for each other."""
    locked = select(jobs.c.id).where(*wanted).order_by(jobs.c.id).with_for_update()
    return jobs.c.id.in_(locked.scalar_subquery())


async def fill_arguments(connection: AsyncConnection, told: Mapping[str, tuple[list[Any], dict[str, Any]]]) -> None:
    unknown_yet = and_(jobs.c.id == bindparam("key"), jobs.c.args.is_(None), jobs.c.kwargs.is_(None))
    await connection.execute(
        update(jobs).where(unknown_yet).values(args=bindparam("told_args"), kwargs=bindparam("told_kwargs")),
        [{"key": job_id, **rows.told_arguments(*told[job_id])} for job_id in sorted(told)],
    )


async def request_cancel(connection: AsyncConnection, job_id: str, at: float, due_at: float) -> Job | None:
    """The job as it is afterwards: REVOKED where no worker had begun it, else open and asked to end.

    From `due_at` on the relay may tell the broker of it. Raises JobEnded; None for an unknown id.
    """
    query = select(jobs).where(jobs.c.id == job_id).with_for_update()
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        return None
    job = rows.read_job(row)
    if job.state is State.REVOKED or (job.state is State.STARTED and job.cancel_requested_at is not None):
        return job
    if job.state.final:
        raise JobEnded(job)
    values: dict[str, Any] = {"cancel_requested_at": at, "due_at": due_at}
    if job.state is not State.STARTED:
        values |= dict.fromkeys(OF_AN_ATTEMPT)
        values |= {"state": State.REVOKED, "reason": Reason.REVOKED, "finished_at": at, "changed_at": at}
    if job.state is State.WAITING or (job.state is State.SCHEDULED and row["due_at"] == job.eta):
        values["due_at"] = None  # no relay has taken it yet, so there is no message to speak of
    await connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))
    after = structs.replace(job, **{name: value for name, value in values.items() if name != "due_at"})
    changes = feed_changes.of(connection)
    changes.states([after] if after.state is not job.state else ())
    changes.tell([after])
    return after


async def mark_revoked(connection: AsyncConnection, ids: Sequence[str]) -> None:
    """The broker keeps these cancellations."""
    cancelled = in_order(jobs.c.id.in_(ids), jobs.c.cancel_requested_at.is_not(None))
    await connection.execute(update(jobs).where(cancelled).values(due_at=None))


async def claim_due(connection: AsyncConnection, now: float, lease: float, limit: int) -> list[Job]:
    """Rows to publish now. They become due again after `lease` seconds, unless they are confirmed before."""
    due = select(jobs.c.id).where(jobs.c.due_at <= now).order_by(jobs.c.due_at).limit(limit)
    if connection.dialect.name == "postgresql":
        due = due.with_for_update(skip_locked=True)
    result = await connection.execute(
        update(jobs).where(jobs.c.id.in_(due.scalar_subquery())).values(due_at=now + lease).returning(*jobs.c)
    )
    return [rows.read_job(row) for row in result.mappings()]


async def renew_due(connection: AsyncConnection, ids: Sequence[str], until: float) -> None:
    """These rows are still being published: they are not due for others before `until`."""
    still = in_order(jobs.c.id.in_(ids), jobs.c.due_at.is_not(None))
    await connection.execute(update(jobs).where(still).values(due_at=until))


async def insert_unknown(connection: AsyncConnection, events: Sequence[JobEvent]) -> None:
    """Blank rows for jobs that plain Celery code sent, in a transaction of their own.

    Were they inserted while other rows are locked, two recorders could wait for each other.
    """
    first: dict[str, JobEvent] = {}
    for event in events:
        first.setdefault(event.job_id, event)
    blank = [rows.job_row(unknown(first[job_id])) for job_id in sorted(first)]
    await connection.execute(upsert(connection, jobs).on_conflict_do_nothing(), blank)


class Strange(LookupError):
    """These jobs have no row."""

    def __init__(self, ids: Collection[str]) -> None:
        super().__init__(f"{len(ids)} jobs have no row")
        self.ids = ids


async def upsert_tasks(connection: AsyncConnection, announced: Sequence[Task]) -> None:
    """The latest word on each task; a name alone never replaces a schema."""
    if not announced:
        return
    insert = upsert(connection, tasks)
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
    told = [rows.worker_row(node, announced=True) for node in announced]
    told += [rows.worker_row(_beating(beat), announced=False) for beat in heartbeats]
    if told:
        told.sort(key=lambda row: row["hostname"])
        insert = upsert(connection, workers)
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
