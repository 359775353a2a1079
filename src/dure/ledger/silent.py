"""Statements of the sweeper: open jobs that nobody has spoken of for a while, and those whose time has run out."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, func, literal_column, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.job import Job, State
from dure.ledger import rows, writes
from dure.ledger.tables import jobs

# Written into the statements, not bound: only so can the partial indexes be chosen.
_OPEN = literal_column("'SUCCESS'") != jobs.c.state
_SENT = jobs.c.state.in_([literal_column("'QUEUED'"), literal_column("'STARTED'"), literal_column("'RETRY'")])
_NOT_BEGUN = jobs.c.state.in_([literal_column("'SCHEDULED'"), literal_column("'ACCEPTED'"), literal_column("'QUEUED'")])
# A node that waits expires too: its signal comes too late, or what it needs does.
_MAY_EXPIRE = jobs.c.state.in_(
    [literal_column(f"'{state}'") for state in ("SCHEDULED", "ACCEPTED", "QUEUED", "WAITING")]
)


async def silent_jobs(connection: AsyncConnection, before: float, limit: int) -> list[Job]:
    """Jobs with a message, of which nothing was heard since `before`, and which were not asked after since."""
    unheard = or_(jobs.c.checked_at.is_(None), jobs.c.checked_at < before)
    query = select(jobs).where(_SENT, _OPEN, jobs.c.changed_at < before, unheard).order_by(jobs.c.seq).limit(limit)
    return [rows.read_job(row) for row in (await connection.execute(query)).mappings()]


async def mark_checked(connection: AsyncConnection, ids: Sequence[str], at: float) -> None:
    await connection.execute(update(jobs).where(writes.in_order(jobs.c.id.in_(ids))).values(checked_at=at))


async def publish_again(connection: AsyncConnection, ids: Sequence[str], at: float, most: int) -> set[str]:
    """Make these due, as far as nobody has begun them and they were not published anew `most` times yet; which are."""
    not_begun = and_(_NOT_BEGUN, jobs.c.started_at.is_(None), jobs.c.cancel_requested_at.is_(None))
    resent = func.coalesce(jobs.c.resent, 0)
    due = writes.in_order(jobs.c.id.in_(ids), not_begun, resent < most)
    values = {"due_at": at, "checked_at": at, "resent": resent + 1}
    return set(await connection.scalars(update(jobs).where(due).values(values).returning(jobs.c.id)))


async def frontiers(connection: AsyncConnection) -> dict[str, float]:
    """For each queue that jobs run from, when the latest of those that run was put into it."""
    running = jobs.c.state == literal_column("'STARTED'")
    query = select(jobs.c.queue, func.max(jobs.c.queued_at)).where(running, _OPEN).group_by(jobs.c.queue)
    return {queue: at for queue, at in await connection.execute(query) if queue is not None and at is not None}


async def expired_jobs(connection: AsyncConnection, before: float, limit: int) -> list[Job]:
    """Jobs that no worker has begun, and none will, for their time was over `before`."""
    over = jobs.c.expires < before
    query = select(jobs).where(_MAY_EXPIRE, over, jobs.c.expires.is_not(None), jobs.c.started_at.is_(None))
    found = await connection.execute(query.order_by(jobs.c.expires).limit(limit))
    return [rows.read_job(row) for row in found.mappings()]


async def expired_waits(connection: AsyncConnection, now: float, limit: int) -> list[Job]:
    """Nodes that wait for a signal, and have waited as long as they may."""
    waits = jobs.c.state == State.WAITING.value
    query = select(jobs).where(_MAY_EXPIRE, waits, jobs.c.expires.is_not(None), jobs.c.expires <= now)
    found = await connection.execute(query.order_by(jobs.c.expires).limit(limit))
    return [rows.read_job(row) for row in found.mappings()]
