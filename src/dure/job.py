"""A job: one submission of a task, from the row to its end."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct


class State(StrEnum):
    """Celery's names where Celery has one. There is no PENDING: an id that nobody submitted is unknown."""

    SCHEDULED = "SCHEDULED"
    WAITING = "WAITING"
    ACCEPTED = "ACCEPTED"
    QUEUED = "QUEUED"
    STARTED = "STARTED"
    RETRY = "RETRY"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL = frozenset({State.SUCCESS, State.FAILURE, State.REVOKED})


class Reason(StrEnum):
    """Why a job ended FAILURE or REVOKED, for machines."""

    ERROR = "error"
    EXPIRED = "expired"
    UNREGISTERED = "unregistered"
    WORKER_LOST = "worker-lost"
    TIME_LIMIT = "time-limit"
    UNSERIALIZABLE = "unserializable"
    REJECTED = "rejected"
    DELIVERY_LIMIT = "delivery-limit"
    UPSTREAM_FAILED = "upstream-failed"
    TERMINATED = "terminated"
    REVOKED = "revoked"
    IGNORED = "ignored"
    LOST = "lost"
    SKIPPED = "skipped"


# Ends that the task itself had no part in: its message could not be run, or not to an end.
DEAD = frozenset(
    {
        Reason.EXPIRED,
        Reason.REJECTED,
        Reason.UNREGISTERED,
        Reason.DELIVERY_LIMIT,
        Reason.WORKER_LOST,
        Reason.LOST,
    }
)


class JobError(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a task raised. `fingerprint` is equal for errors of one type from one place in the code."""

    type: str
    message: str
    traceback: str | None = None
    fingerprint: str | None = None


class Until(StrEnum):
    """How long a unique key is held: until its job is begun, has ended, or a time has passed."""

    STARTED = "started"
    FINISHED = "finished"
    TIME = "time"


class Unique(Struct, frozen=True, kw_only=True):
    """No second job is made while one holds the key; `expires_at` goes with Until.TIME."""

    key: str
    until: Until = Until.FINISHED
    expires_at: float | None = None


class Options(Struct, frozen=True, kw_only=True):
    """How a job is to be run. Times are seconds since the epoch, durations seconds."""

    queue: str | None = None
    priority: int | None = None
    eta: float | None = None
    expires: float | None = None
    retries: int | None = None
    time_limit: float | None = None
    tags: tuple[str, ...] = ()
    unique: Unique | None = None


class Job(Struct, frozen=True, kw_only=True):
    """The whole record of a job. Times are seconds since the epoch; `None` is not known or not yet.

    `attempt` is the attempt that the state comes from: None while no worker has spoken, 0 from a worker that does
    not number its attempts. `attempts` counts them. `args_repr` and `result_repr` are what a stock Celery event
    told, where the value itself is not known. `fingerprint` groups jobs that failed alike; `retry_of` is the job that
    an operator sent again as this one. `node` is its name in the workflow, where a job that is `replaced_by` another
    does not count any more. A job with `cancel_requested_at` that is still open runs, and could not be
    stopped yet.
    """

    id: str
    task: str | None = None
    state: State = State.ACCEPTED
    reason: str | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    args_repr: str | None = None
    kwargs_repr: str | None = None
    result: Any = None
    result_repr: str | None = None
    error: JobError | None = None
    fingerprint: str | None = None
    attempt: int | None = None
    attempts: int = 0
    worker: str | None = None
    queue: str | None = None
    priority: int | None = None
    retries: int | None = None
    time_limit: float | None = None
    tags: tuple[str, ...] = ()
    origin: str = "dure"
    root_id: str | None = None
    parent_id: str | None = None
    group_id: str | None = None
    retry_of: str | None = None
    unique_key: str | None = None
    workflow_id: str | None = None
    node: str | None = None
    replaced_by: str | None = None
    created_at: float = 0.0
    eta: float | None = None
    expires: float | None = None
    queued_at: float | None = None
    received_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    cancel_requested_at: float | None = None
    changed_at: float = 0.0
    runtime: float | None = None
