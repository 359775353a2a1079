"""The shapes of answers about workflows, for the OpenAPI document; `dure.view` makes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from dure.job import State
from dure.workflow import Kind, On

WorkflowState = Literal[State.STARTED, State.SUCCESS, State.FAILURE, State.REVOKED]


class WorkflowRecord(BaseModel):
    """The record of a workflow."""

    id: str
    name: str | None
    state: WorkflowState = Field(description="`STARTED` until no node is open, or its time is over.")
    reason: str | None = Field(description="Why it ended FAILURE or REVOKED: that of the first node that failed.")
    timeout: float | None = Field(description="Seconds that the whole may take.")
    deadline: datetime | None = Field(description="When they are over.")
    origin: str = Field(description="`dure`, or `celery` for a canvas that plain Celery code sent.")
    created_at: datetime
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    changed_at: datetime


class WorkflowPage(BaseModel):
    workflows: list[WorkflowRecord]
    next: str | None = Field(description="Cursor of the next page; null on the last.")


class EndedWorkflow(WorkflowRecord):
    """A workflow that succeeded while the caller waited."""

    result: Any


class PendingWorkflow(BaseModel):
    id: str
    state: WorkflowState


class WorkflowResult(BaseModel):
    id: str
    state: WorkflowState
    result: Any = Field(description="A group's is the list of its members' in their order.")


class Progress(BaseModel):
    done: int = Field(description="Nodes that have ended, however they ended.")
    total: int = Field(description="Nodes that are known by now; a map makes its nodes on the way.")


class NeedRecord(BaseModel):
    node: str
    on: On = Field(description="Which end of the need lets this node begin.")


class FailureSummary(BaseModel):
    """What the task raised; the job's record has the rest."""

    type: str
    message: str


class StepRecord(BaseModel):
    """A node of a workflow."""

    name: str
    kind: Kind
    job: str = Field(description="The job that the node is.")
    task: str | None
    state: State
    reason: str | None
    attempts: int
    created_at: datetime
    eta: datetime | None
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    runtime: float | None = Field(description="Seconds that the last attempt ran.")
    needs: list[NeedRecord]
    error: FailureSummary | None


class CriticalPath(BaseModel):
    """The chain of needs that took longest, as far as its nodes have ended."""

    nodes: list[str] = Field(description="Names, first to last.")
    seconds: float


class WholeWorkflow(WorkflowRecord):
    """A workflow with its nodes; `nodes` and `critical_path` are left out with `?nodes=false`."""

    counts: dict[State, int] = Field(description="Nodes by state.")
    progress: Progress
    nodes: list[StepRecord] | None = None
    critical_path: CriticalPath | None = None
