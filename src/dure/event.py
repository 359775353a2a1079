"""What happened to a job, and how the events of a job make its record.

Folding does not depend on order, and a repeated event changes nothing: each field of the record is either the
least or greatest of what was told (times, counts), or comes from the one event of the highest standing (state,
result, error, worker). A standing is compared in this order:

1. An end is above whatever is open. SUCCESS is above FAILURE, which is above REVOKED, as in Celery's result
   backends; of two ends of one kind the first attempt's holds, for that is what the caller was told.
2. What a worker said is above what the submitter said or Dure concluded (a cancelling, a dead letter, a lost job),
   so clocks of two machines are not compared.
3. Among open states the highest attempt decides, in it the furthest state, then the latest time. Stock workers do
   not number their attempts; theirs is 0, and time goes before state.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import msgspec
from msgspec import Struct, structs

from dure.entry import Position
from dure.job import Job, JobError, State

_OPEN = {
    State.SCHEDULED: 0,
    State.WAITING: 1,
    State.ACCEPTED: 2,
    State.QUEUED: 3,
    State.STARTED: 4,
    State.RETRY: 5,
}
_END = {State.REVOKED: 0, State.FAILURE: 1, State.SUCCESS: 2}

Standing = tuple[int, int, float, float]


class JobEvent(Struct, frozen=True, kw_only=True):
    """One thing that happened to a job at `at`, told by `worker`; `state` is where it leaves the job.

    `delivery` is true for the event that a worker took the message, which leaves the job QUEUED. `told` is the place of
    the last entry of an attempt that is over, where its worker says so; the record has nothing of it.
    """

    job_id: str
    state: State
    at: float
    attempt: int | None = None
    worker: str | None = None
    delivery: bool = False
    reason: str | None = None
    result: Any = None
    has_result: bool = False
    result_repr: str | None = None
    error: JobError | None = None
    runtime: float | None = None
    attempts: int = 0
    task: str | None = None
    args_repr: str | None = None
    kwargs_repr: str | None = None
    queue: str | None = None
    eta: float | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group_id: str | None = None
    told: Position | None = None


def standing(state: State, attempt: int | None, at: float) -> Standing:
    if state.final:
        return (1, _END[state], -math.inf if attempt is None else -attempt, -at)
    if attempt is None:
        return (0, -1, _OPEN[state], at)
    if attempt == 0:
        return (0, 0, at, _OPEN[state])
    return (0, attempt, _OPEN[state], at)


def fold(job: Job | None, event: JobEvent) -> Job:
    """The record after one more event; `job` is None for a job that plain Celery code sent."""
    if job is None:
        job = unknown(event)
    facts = _facts(job, event)
    if _key(event) > _job_key(job):
        facts |= {
            "state": event.state,
            "reason": event.reason,
            "attempt": event.attempt,
            "worker": event.worker,
            "result": event.result,
            "result_repr": event.result_repr,
            "error": event.error,
            "fingerprint": fingerprint(event, _task_of(job)) if event.state is State.FAILURE else None,
            "runtime": event.runtime,
            "changed_at": event.at,
            "finished_at": event.at if event.state.final else None,
        }
    return structs.replace(job, **facts)


def _task_of(job: Job) -> str | None:
    """What every event finds alike: the name of a job of plain Celery code may be told later than its end."""
    return job.task if job.origin == "dure" else None


def fingerprint(event: JobEvent, task: str | None) -> str:
    """What groups jobs that failed alike: the error's own, else the task, the reason and the error's type."""
    error = event.error
    if error is not None and error.fingerprint:
        return error.fingerprint[:64]
    told = f"{task}\n{event.reason}\n{error.type if error else ''}"
    return hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:16]


def unknown(event: JobEvent) -> Job:
    """A record below any event, so that the first one decides."""
    return Job(
        id=event.job_id,
        state=State.SCHEDULED,
        origin="celery",
        created_at=event.at,
        changed_at=event.at,
    )


def _facts(job: Job, event: JobEvent) -> dict[str, Any]:
    """What every event adds, whatever its standing."""
    foreign = job.origin != "dure"
    facts: dict[str, Any] = {
        "attempts": max(job.attempts, event.attempt or 0, event.attempts),
        "root_id": _settled(job.root_id, event.root_id),
        "parent_id": _settled(job.parent_id, event.parent_id),
        "group_id": _settled(job.group_id, event.group_id),
    }
    if foreign:
        facts |= {
            "task": _settled(job.task, event.task),
            "queue": _settled(job.queue, event.queue),
            "args_repr": _settled(job.args_repr, event.args_repr),
            "kwargs_repr": _settled(job.kwargs_repr, event.kwargs_repr),
            "eta": _settled(job.eta, event.eta),
            "created_at": min(job.created_at, event.at),
        }
    if event.attempt is None and event.state is State.QUEUED:
        facts["queued_at"] = _first(job.queued_at, event.at)
    if event.delivery:
        # The broker's confirmation may be written down later than the worker's word; it was queued by then.
        facts["queued_at"] = _first(job.queued_at, event.at)
        facts["received_at"] = _first(job.received_at, event.at)
    if event.state is State.STARTED:
        facts["started_at"] = _first(job.started_at, event.at)
    return facts


def _first(known: float | None, told: float) -> float:
    return told if known is None else min(known, told)


def _settled(known: Any, told: Any) -> Any:
    """Of two versions of a fact always the same one, whichever came first."""
    if known is None or told is None:
        return told if known is None else known
    return min(known, told)


def _key(event: JobEvent) -> tuple[Standing, bytes]:
    outcome = (event.worker, event.reason, event.result, event.result_repr, event.error, event.runtime)
    return standing(event.state, event.attempt, event.at), msgspec.json.encode(outcome)


def _job_key(job: Job) -> tuple[Standing, bytes]:
    outcome = (job.worker, job.reason, job.result, job.result_repr, job.error, job.runtime)
    return standing(job.state, job.attempt, job.changed_at), msgspec.json.encode(outcome)
