"""A batch of events made part of the rows that it is about, which are locked meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from msgspec import Struct
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.event import JobEvent, fold
from dure.job import Job, JobError, State
from dure.ledger import feed_changes, rows, trips
from dure.ledger.bulk import Call, among_listed, listed, updating
from dure.ledger.nodes import Ended
from dure.ledger.tables import jobs
from dure.ledger.writes import Strange


class Folded(Struct, frozen=True):
    """Jobs as they are now, and the nodes among them whose ends are to be passed on: those are marked so."""

    changed: list[Job]
    ended: list[Ended]


def lock(connection: AsyncConnection, ids: Collection[str]) -> Call:
    """Asks for the rows of these jobs, and locks them."""
    return Call(_lock(connection.dialect.name), [listed(ids)])


@cache
def _lock(dialect: str) -> Select[Any]:
    return select(jobs).where(among_listed(dialect, jobs.c.id)).order_by(jobs.c.id).with_for_update()


def fold_into(connection: AsyncConnection, found: trips.Found, events: Sequence[JobEvent], now: float) -> Folded:
    """`found` are the locked rows. Raises Strange for events of jobs that have none."""
    by_job: dict[str, list[JobEvent]] = {}
    for event in events:
        by_job.setdefault(event.job_id, []).append(event)
    if strange := by_job.keys() - {row["id"] for row in found}:
        raise Strange(strange)
    changed: list[Job] = []
    states: list[Job] = []
    ended: list[Ended] = []
    written = []
    for row in found:
        before = job = rows.read_job(row)
        for event in by_job[job.id]:
            job = fold(job, event)
        if job == before:
            continue
        passed_on_at = row["passed_on_at"]
        if job.state.final and job.workflow_id is not None and passed_on_at is None:
            ended.append(Ended(job, rows.read_plan(row)))
            passed_on_at = now
        written.append(rows.folded_row(job, _due_at(job, row["due_at"]), passed_on_at))
        changed.append(job)
        if _stands(job) != _stands(before):
            states.append(job)
    trips.later(connection, updating(connection, jobs, written))
    feed_changes.of(connection).states(states)
    return Folded(changed, ended)


def never_published(job_id: str, reason: str, message: str, at: float) -> JobEvent:
    """The end of a job whose message can never be published."""
    error = JobError(type="dure.errors.Unroutable", message=message)
    return JobEvent(job_id=job_id, state=State.FAILURE, at=at, reason=reason, error=error)


def is_nobodys(row: rows.Row) -> bool:
    """No worker has it, and nobody has asked for its end."""
    return row["attempt"] is None and row["cancel_requested_at"] is None


def _due_at(job: Job, due_at: float | None) -> float | None:
    """A worker's word shows that there is a message, so nothing is due; but a cancellation still is, until the end."""
    is_ended = job.state.final and job.attempt is not None
    return due_at if job.cancel_requested_at is not None and not is_ended else None


def _stands(job: Job) -> tuple[Any, ...]:
    return (job.state, job.attempt, job.reason)
