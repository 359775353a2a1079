"""Every question put to the ledger."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Select, func, literal_column, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.errors import InvalidCursor
from dure.job import DEAD, Job, State
from dure.ledger import rows
from dure.ledger.tables import job_tags, jobs, queues, tasks, workers
from dure.node import Node, Running
from dure.task import Task

_MAX_SEQ = 2**63 - 1


class JobFilter(Struct, frozen=True, kw_only=True):
    """What to list; None is everything. `since` is inclusive, `until` is not; `text` is looked for in arguments.

    `workflow` wants its nodes, also those that were replaced; `dead` only dead letters; `retried` only jobs that were
    sent again, or only those that were not.
    """

    state: State | None = None
    reason: str | None = None
    fingerprint: str | None = None
    dead: bool = False
    retried: bool | None = None
    task: str | None = None
    queue: str | None = None
    worker: str | None = None
    tag: str | None = None
    workflow: str | None = None
    since: float | None = None
    until: float | None = None
    text: str | None = None


class Page(Struct, frozen=True, kw_only=True):
    """Jobs, newest first; `next` is the cursor of the page after, None on the last."""

    jobs: tuple[Job, ...]
    next: str | None


class Group(Struct, frozen=True, kw_only=True):
    """Jobs that ended alike: `latest` is one of them, the others differ in arguments and time."""

    fingerprint: str | None
    task: str | None
    reason: str | None
    count: int
    first_at: float | None
    last_at: float | None
    latest: Job


async def find_job(connection: AsyncConnection, job_id: str) -> Job | None:
    row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).mappings().first()
    return None if row is None else rows.read_job(row)


async def find_jobs(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, Job]:
    found = await connection.execute(select(jobs).where(jobs.c.id.in_(ids)))
    return {row["id"]: rows.read_job(row) for row in found.mappings()}


async def list_jobs(connection: AsyncConnection, wanted: JobFilter, cursor: str | None, limit: int) -> Page:
    """One page. Rows that arrive meanwhile have a higher `seq`, so they move no later page."""
    query = filtered(select(jobs), wanted).order_by(jobs.c.seq.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(jobs.c.seq < read_cursor(cursor))
    found = list((await connection.execute(query)).mappings())
    more = len(found) > limit
    page = found[:limit]
    return Page(jobs=tuple(map(rows.read_job, page)), next=cursor_of(page[-1]["seq"]) if more else None)


def filtered(query: Select[Any], wanted: JobFilter) -> Select[Any]:
    where: list[ColumnElement[bool]] = []
    if wanted.state is not None:
        # Written into the statement, not bound: only so can the partial index be chosen.
        where.append(jobs.c.state == literal_column(f"'{wanted.state.value}'"))
        if wanted.state is not State.SUCCESS:
            where.append(jobs.c.state != literal_column("'SUCCESS'"))
    for name in ("reason", "fingerprint", "task", "queue", "worker"):
        if (value := getattr(wanted, name)) is not None:
            where.append(jobs.c[name] == value)
    if wanted.workflow is not None:
        where.append(jobs.c.workflow_id == wanted.workflow)
    if wanted.dead:
        where += _dead()
    if wanted.retried is not None:
        again = jobs.alias()
        was = select(again.c.id).where(again.c.retry_of == jobs.c.id).correlate(jobs).exists()
        where.append(was if wanted.retried else ~was)
    if wanted.tag is not None:
        where.append(jobs.c.id.in_(select(job_tags.c.job_id).where(job_tags.c.tag == wanted.tag)))
    if wanted.since is not None:
        where.append(jobs.c.created_at >= wanted.since)
    if wanted.until is not None:
        where.append(jobs.c.created_at < wanted.until)
    if wanted.text is not None:
        # In the JSON a quote or a backslash of an argument stands escaped.
        texts = {wanted.text, msgspec.json.encode(wanted.text).decode()[1:-1]}
        columns = (jobs.c.args, jobs.c.kwargs, jobs.c.args_repr, jobs.c.kwargs_repr)
        where.append(or_(*(column.icontains(text, autoescape=True) for column in columns for text in sorted(texts))))
    return query.where(*where)


def _dead() -> list[ColumnElement[bool]]:
    failed = jobs.c.state == literal_column("'FAILURE'")
    waited = func.coalesce(jobs.c.task, "") == "dure.wait"  # for a signal that never came: it has no message
    return [failed, ~waited, jobs.c.state != literal_column("'SUCCESS'"), jobs.c.reason.in_(sorted(DEAD))]


async def count_jobs(connection: AsyncConnection, wanted: JobFilter) -> int:
    query = filtered(select(func.count()).select_from(jobs), wanted)
    return int(await connection.scalar(query) or 0)


async def oldest_jobs(connection: AsyncConnection, wanted: JobFilter, limit: int) -> list[Job]:
    found = await connection.execute(filtered(select(jobs), wanted).order_by(jobs.c.seq).limit(limit))
    return [rows.read_job(row) for row in found.mappings()]


async def group_jobs(connection: AsyncConnection, wanted: JobFilter, limit: int) -> list[Group]:
    """Jobs that ended alike, the largest group first."""
    by = (jobs.c.fingerprint, jobs.c.task, jobs.c.reason)
    told = (func.count().label("size"), func.min(jobs.c.finished_at).label("first_at"))
    last = (func.max(jobs.c.finished_at).label("last_at"), func.max(jobs.c.seq).label("seq"))
    query = filtered(select(*by, *told, *last), wanted).group_by(*by).order_by(text("size DESC"), text("seq DESC"))
    groups = list(await connection.execute(query.limit(limit)))
    found = await connection.execute(select(jobs).where(jobs.c.seq.in_([group.seq for group in groups])))
    latest = {row["seq"]: rows.read_job(row) for row in found.mappings()}
    return [
        Group(
            fingerprint=group.fingerprint,
            task=group.task,
            reason=group.reason,
            count=group.size,
            first_at=group.first_at,
            last_at=group.last_at,
            latest=latest[group.seq],
        )
        for group in groups
    ]


def cursor_of(seq: int) -> str:
    return base64.urlsafe_b64encode(seq.to_bytes(8)).decode().rstrip("=")


def read_cursor(cursor: str) -> int:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise InvalidCursor(cursor) from None
    seq = int.from_bytes(raw)
    if len(raw) != 8 or seq > _MAX_SEQ:
        raise InvalidCursor(cursor)
    return seq


async def cancelled_ids(connection: AsyncConnection, limit: int) -> list[str]:
    """Jobs that were cancelled before anybody had begun them, the latest first."""
    revoked = [jobs.c.state == literal_column("'REVOKED'"), jobs.c.state != literal_column("'SUCCESS'")]
    before_start = [jobs.c.cancel_requested_at.is_not(None), jobs.c.attempt.is_(None)]
    query = select(jobs.c.id).where(*revoked, *before_start).order_by(jobs.c.seq.desc()).limit(limit)
    return list(await connection.scalars(query))


async def list_tasks(connection: AsyncConnection) -> list[Task]:
    found = await connection.execute(select(tasks).order_by(tasks.c.name))
    return [rows.read_task(row) for row in found.mappings()]


async def catalogue_version(connection: AsyncConnection) -> tuple[int, float]:
    """Differs whenever a task was added or announced anew."""
    row = (await connection.execute(select(func.count(), func.max(tasks.c.announced_at)).select_from(tasks))).one()
    return int(row[0]), float(row[1] or 0)


async def list_workers(connection: AsyncConnection) -> list[Node]:
    found = await connection.execute(select(workers).order_by(workers.c.hostname))
    return [rows.read_worker(row) for row in found.mappings()]


async def running_jobs(connection: AsyncConnection) -> dict[str, list[Running]]:
    """What each worker runs now, by hostname."""
    started = jobs.c.state == literal_column("'STARTED'")
    open_ = jobs.c.state != literal_column("'SUCCESS'")
    query = select(jobs.c.worker, jobs.c.id, jobs.c.task, jobs.c.started_at).where(started, open_).limit(10_000)
    running: dict[str, list[Running]] = {}
    for worker, job_id, task, started_at in await connection.execute(query):
        if worker is not None:
            running.setdefault(worker, []).append(Running(id=job_id, task=task, started_at=started_at))
    return running


async def list_queues(connection: AsyncConnection) -> list[str]:
    return list(await connection.scalars(select(queues.c.name).order_by(queues.c.name)))


async def count_open(connection: AsyncConnection) -> dict[State, int]:
    """Jobs by state, of those that have not succeeded: the partial index holds no others."""
    query = select(jobs.c.state, func.count()).where(jobs.c.state != literal_column("'SUCCESS'")).group_by(jobs.c.state)
    return {State(state): count for state, count in await connection.execute(query)}


async def next_due(connection: AsyncConnection) -> float:
    """When the next row is due; infinite when none is."""
    due_at = await connection.scalar(select(func.min(jobs.c.due_at)).where(jobs.c.due_at.is_not(None)))
    return float("inf") if due_at is None else float(due_at)
