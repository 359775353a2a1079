"""The shapes of answers, for the OpenAPI document; `render` makes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from dure.job import State


class ErrorRecord(BaseModel):
    """What the task raised."""

    type: str
    message: str
    traceback: str | None = None
    fingerprint: str | None = Field(None, description="Equal for errors of one type from one place in the code.")


class JobRecord(BaseModel):  # type: ignore[no-redef]
    """The whole record of a job."""

    id: str
    task: str | None
    state: State
    reason: str | None = Field(description="Why the job ended FAILURE or REVOKED, for machines.")
    args: list[Any] | None
    kwargs: dict[str, Any] | None
    args_repr: str | None = Field(description="For jobs that plain Celery code sent: what its event told.")
    kwargs_repr: str | None
    result: Any
    result_repr: str | None = Field(description="Where the value is not known: what Celery's event told.")
    error: ErrorRecord | None
    fingerprint: str | None = Field(description="Equal for jobs that failed alike; null for others.")
    attempts: int
    worker: str | None
    queue: str | None
    priority: int | None
    retries: int | None
    time_limit: float | None
    tags: list[str]
    origin: str = Field(description="`dure`, or `celery` for a job that plain Celery code sent.")
    root_id: str | None
    parent_id: str | None
    group_id: str | None
    retry_of: str | None = Field(description="The job that was sent again as this one.")
    unique_key: str | None
    workflow_id: str | None = Field(description="The workflow that it is a node of.")
    node: str | None = Field(description="Its name there.")
    replaced_by: str | None = Field(description="The job that counts in its place in the workflow.")
    created_at: datetime
    eta: datetime | None
    expires: datetime | None
    queued_at: datetime | None
    received_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    changed_at: datetime
    runtime: float | None = Field(description="Seconds that the last attempt ran.")


class SubmittedRecord(JobRecord):  # type: ignore[no-redef]
    """The record of a job, and for who submitted it with a token of the task a token of the job."""

    token: str | None = Field(None, description="Opens this job: to watch it, and to cancel it if the task's may be.")
    token_expires_at: datetime | None = None


class TokenRecord(BaseModel):
    token: str = Field(description="A bearer token: Authorization: Bearer TOKEN, or the query parameter `token`.")
    expires_at: datetime


class JobPage(BaseModel):
    jobs: list[JobRecord]
    next: str | None = Field(description="Cursor of the next page; null on the last.")


class JobList(BaseModel):
    jobs: list[JobRecord]


class SkippedRecord(BaseModel):
    id: str
    error: str = Field(description="Why this job could not be sent again.")


class Matched(BaseModel):
    """What a dry run tells."""

    matched: int
    dry_run: bool
    jobs: list[JobRecord] = Field(description="The oldest, at most 20.")
    skipped: list[SkippedRecord]


class ResentRecord(BaseModel):
    """What was sent again."""

    matched: int = Field(description="Jobs that could be sent again when asking began.")
    dry_run: bool
    jobs: list[str] = Field(description="Ids of the new jobs.")
    skipped: list[SkippedRecord]


class GroupRecord(BaseModel):
    """Dead letters that ended alike."""

    fingerprint: str | None
    task: str | None
    reason: str | None
    count: int
    first_at: datetime | None = Field(description="When the first of them ended.")
    last_at: datetime | None
    latest: JobRecord


class GroupList(BaseModel):
    groups: list[GroupRecord]


class ResultRecord(BaseModel):
    id: str
    state: State
    result: Any
    result_repr: str | None = None


class PendingRecord(BaseModel):
    id: str
    state: State


class TaskRecord(BaseModel):
    name: str
    doc: str | None
    arguments: dict[str, Any] | None = Field(description="JSON schema of the named arguments.")
    result: dict[str, Any] | None
    queue: str | None
    announced_at: datetime
    announced_by: str | None


class TaskList(BaseModel):
    tasks: list[TaskRecord]


class QueueRecord(BaseModel):
    name: str
    messages: int = Field(description="Messages that wait in it.")
    consumers: int
    exists: bool


class QueueList(BaseModel):
    queues: list[QueueRecord]


class RunningRecord(BaseModel):
    id: str
    task: str | None
    started_at: datetime | None


class WorkerRecord(BaseModel):
    hostname: str
    online: bool
    pool: str | None
    concurrency: int | None
    queues: list[str]
    software: str | None
    pid: int | None
    processed: int | None
    heartbeat_at: datetime
    started_at: datetime | None
    running: list[RunningRecord]


class WorkerList(BaseModel):
    workers: list[WorkerRecord]


class HealthRecord(BaseModel):
    ok: bool
    detail: str


class Readiness(BaseModel):
    ready: bool
    checks: dict[str, HealthRecord] = Field(description="Ledger, broker and each service, by name.")


class Alive(BaseModel):
    status: str


class FieldProblem(BaseModel):
    loc: list[str | int]
    message: str


class Problem(BaseModel):
    """RFC 9457. `type` is `urn:dure:problem:` and a word that says what is wrong."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = Field(None, description="Each wrong field, for 422.")
    near: list[str] | None = Field(None, description="Tasks with a like name, for an unknown one.")
    job: str | None = None
    workflow: str | None = None
    node: str | None = Field(None, description="Which node of the workflow; of one that failed the first that did.")
    state: State | None = None
    reason: str | None = None
    error: ErrorRecord | None = None
