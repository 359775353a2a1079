"""What can go wrong, as types with fields.

DureError
├── ConfigurationError      one or more settings are wrong; carries every problem found
├── InvalidSubmission       arguments or options do not fit; carries each wrong field
├── UnknownTask             no worker has announced the task
├── UnknownJob              nobody submitted the id
├── JobEnded                the job has ended, so it can't be cancelled
├── JobNotEnded             the job is still open, so it can't be sent again
├── UnknownWorkflow         nobody submitted a workflow with the id
├── UnknownNode             the workflow has no such node, or it is none that takes a signal
├── WorkflowEnded           the workflow has ended, so it can't be cancelled
├── WorkflowNotEnded        the workflow is still open, so it can't be run again
├── IdempotencyConflict     the idempotency key belongs to another request
├── InvalidCursor           a page cursor that this server did not make
├── JobFailed               the job ended FAILURE or REVOKED
├── WorkflowFailed          the workflow ended FAILURE or REVOKED; carries the first job that failed
├── DeadLetter              a message was delivered too often without an end (told in a job's error)
├── ResultTimeout           the job or the workflow had not ended in time (also a TimeoutError)
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
    from dure.workflow import Workflow


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
        super().__init__("; ".join(f"{'.'.join(map(str, e.loc))}: {e.message}" if e.loc else e.message for e in errors))


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
    def __init__(self, job: Job, so: str = "there is nothing to cancel") -> None:
        self.job = job
        super().__init__(f"job {job.id} has ended {job.state}; {so}")


class JobNotEnded(DureError):
    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__(f"job {job.id} is {job.state}; only a job that has ended can be sent again")


class UnknownWorkflow(DureError):
    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(f"no workflow has the id {workflow_id!r}")


class UnknownNode(DureError):
    def __init__(self, workflow_id: str, node: str, detail: str = "it has none of that name") -> None:
        self.workflow_id = workflow_id
        self.node = node
        super().__init__(f"workflow {workflow_id}, node {node!r}: {detail}")


class WorkflowEnded(DureError):
    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        super().__init__(f"workflow {workflow.id} has ended {workflow.state}; there is nothing to cancel")


class WorkflowNotEnded(DureError):
    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        super().__init__(
            f"workflow {workflow.id} is {workflow.state}; it can be run again when it has ended, or name a node to run "
            "again from"
        )


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


class WorkflowFailed(DureError):
    """Raised by `WorkflowHandle.result()`; `job` is the first node that failed, None where none did."""

    def __init__(self, workflow: Workflow, job: Job | None) -> None:
        self.workflow = workflow
        self.job = job
        detail = workflow.reason or workflow.state
        if job is not None:
            detail = f"node {job.node or job.id!r} ended {job.state}: "
            detail += f"{job.error.type}: {job.error.message}" if job.error else job.reason or job.state
        super().__init__(f"workflow {workflow.id} ended {workflow.state}: {detail}")


class DeadLetter(DureError):
    """What a job's error names whose message was given up; nothing in this process raises it."""


class ResultTimeout(DureError, TimeoutError):
    """`job_id` is also a workflow's, where `what` says so."""

    def __init__(self, job_id: str, timeout: float, what: str = "job") -> None:
        self.job_id = job_id
        self.timeout = timeout
        super().__init__(f"{what} {job_id} had not ended after {timeout:g} s")


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
