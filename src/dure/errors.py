"""What can go wrong, as types with fields.

DureError
├── ConfigurationError      one or more settings are wrong; carries every problem found
├── InvalidSubmission       arguments or options do not fit; carries each wrong field
├── UnknownTask             no worker has announced the task
├── UnknownJob              nobody submitted the id
├── JobEnded                the job has ended, so it can't be cancelled
├── JobNotEnded             the job is still open, so it can't be sent again
├── IdempotencyConflict     the idempotency key belongs to another request
├── InvalidCursor           a page cursor that this server did not make
├── JobFailed               the job ended FAILURE or REVOKED
├── DeadLetter              a message was delivered too often without an end (told in a job's error)
├── ResultTimeout           the job had not ended in time (also a TimeoutError)
├── LinkError
│   ├── LinkDown            the broker cannot be reached now
│   ├── Unroutable          no queue takes the message
│   └── QueueRefused        the broker does not let this queue be used
└── LedgerUnavailable       the database cannot be reached, is locked or is full
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dure.job import Job


class DureError(Exception):
    """The root of every error that Dure raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong setting: where it is, what is wrong, and what to do about it."""

    place: str
    message: str
    remedy: str


class ConfigurationError(DureError):
    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.place}: {p.message} ({p.remedy})" for p in self.problems))


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field; `loc` is its path in what was sent, such as `("kwargs", "x")`."""

    loc: tuple[str | int, ...]
    message: str


class InvalidSubmission(DureError):
    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{'.'.join(map(str, e.loc))}: {e.message}" for e in self.errors))


class UnknownTask(DureError):
    def __init__(self, name: str, near: Sequence[str] = ()) -> None:
        self.name = name
        self.near = tuple(near)
        hint = f"; did you mean {', '.join(self.near)}?" if self.near else ""
        super().__init__(f"no worker has announced a task named {name!r}{hint}")


class UnknownJob(DureError):
    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"no job has the id {job_id!r}")


class JobEnded(DureError):
    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__(f"job {job.id} has ended {job.state}; there is nothing to cancel")


class JobNotEnded(DureError):
    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__(f"job {job.id} is {job.state}; only a job that has ended can be sent again")


class IdempotencyConflict(DureError):
    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the idempotency key {key!r} was used for another request")


class InvalidCursor(DureError):
    def __init__(self, cursor: str) -> None:
        self.cursor = cursor
        super().__init__("the cursor is not one that this server gave out")


class JobFailed(DureError):
    """Raised by `JobHandle.result()`; `job` is the whole record, with its error."""

    def __init__(self, job: Job) -> None:
        self.job = job
        detail = f"{job.error.type}: {job.error.message}" if job.error else job.reason or job.state
        super().__init__(f"{job.task}[{job.id}] ended {job.state}: {detail}")


class DeadLetter(DureError):
    """What a job's error names whose message was given up; nothing in this process raises it."""


class ResultTimeout(DureError, TimeoutError):
    def __init__(self, job_id: str, timeout: float) -> None:
        self.job_id = job_id
        self.timeout = timeout
        super().__init__(f"job {job_id} had not ended after {timeout:g} s")


class LinkError(DureError):
    """The root of what goes wrong between Dure and a broker."""


class LinkDown(LinkError):
    def __init__(self, url: str, detail: str) -> None:
        self.url = url  # without its password
        self.detail = detail
        super().__init__(f"the broker {url} cannot be reached: {detail}")


class Unroutable(LinkError):
    def __init__(self, queue: str) -> None:
        self.queue = queue
        super().__init__(f"no queue named {queue!r} takes the message")


class QueueRefused(LinkError):
    def __init__(self, queue: str, detail: str) -> None:
        self.queue = queue
        self.detail = detail
        super().__init__(f"the broker refuses the queue {queue!r}: {detail}")


class LedgerUnavailable(DureError):
    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"the ledger cannot be used now: {detail}")
