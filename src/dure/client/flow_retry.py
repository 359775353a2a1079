"""Running a node of a workflow again: in its place, as a new job, with all that depends on it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from dure.client.again import Edits, Skipped, draft_again
from dure.errors import FieldError, InvalidSubmission, JobNotEnded, UnknownNode, WorkflowNotEnded
from dure.job import Job, Reason
from dure.workflow import Kind, references

if TYPE_CHECKING:
    from dure.client.dure import Dure

_UNIQUE = ("unique_key", "unique_until", "unique_for")
_NO_TASKS = tuple(f"dure.{kind}" for kind in Kind if kind is not Kind.TASK)


async def retry_node(dure: Dure, job: Job, edits: Edits, later: float = 0.0) -> Job:
    """The new job; where one was made for this already and is still open, that one.

    Raises JobNotEnded, UnknownNode, WorkflowNotEnded or InvalidSubmission.
    """
    assert job.workflow_id is not None  # noqa: S101 - it is a node
    name = job.node or job.id
    edited = await _edited(dure, job, edits, later) if later or edits != Edits() else None
    try:
        await dure.in_time(dure.ledger.retry_workflow(job.workflow_id, time.time(), node=name, job=edited))
    except JobNotEnded as exc:
        if exc.job.retry_of == job.id:
            return exc.job
        raise
    present = await dure.ledger.node(job.workflow_id, name)
    if present is None:
        raise UnknownNode(job.workflow_id, name)
    return present


async def retry_nodes(
    dure: Dure, nodes: Sequence[Job], edits: Edits, *, first: int, rate: float | None
) -> AsyncIterator[Job | Skipped]:
    """Each as a new job, `rate` of them a second as those `first` ones before them.

    What failed because of another comes last: mostly that one is among them, and has it run again.
    """
    for number, job in enumerate(sorted(nodes, key=_is_upstream_failed), first):
        later = number / rate if rate is not None else 0.0
        try:
            yield await _again(dure, job, edits, later)
        except (InvalidSubmission, JobNotEnded, UnknownNode, WorkflowNotEnded) as exc:
            yield Skipped(id=job.id, error=str(exc))


async def _again(dure: Dure, job: Job, edits: Edits, later: float) -> Job:
    if not _is_upstream_failed(job):
        return await retry_node(dure, job, edits, later)
    present = await dure.ledger.node(job.workflow_id or "", job.node or "")
    if present is None or present.id == job.id:
        raise InvalidSubmission([FieldError(("node",), "it is run again with the node that it needs and that failed")])
    return present


def _is_upstream_failed(job: Job) -> bool:
    return job.reason == Reason.UPSTREAM_FAILED


async def _edited(dure: Dure, job: Job, edits: Edits, later: float) -> Job:
    if job.task in _NO_TASKS:
        raise InvalidSubmission([FieldError(("node",), f"{job.node!r} runs no task, so nothing of it can be changed")])
    if held := [name for name in _UNIQUE if name in edits.options]:
        raise InvalidSubmission([FieldError((name,), "a node of a workflow holds no unique key") for name in held])
    if any(references(_kept(job, edits))):
        message = "the node was never begun and they refer to others; give all of them, or change nothing"
        raise InvalidSubmission([FieldError(("args",), message)])
    return (await draft_again(dure, job, edits, later)).job


def _kept(job: Job, edits: Edits) -> list[Any]:
    """The arguments that stay as they were submitted, with references that were never filled in."""
    if job.queued_at is not None or job.started_at is not None:
        return []
    kwargs = [value for name, value in (job.kwargs or {}).items() if name not in edits.kwargs]
    return kwargs if edits.args is not None else [*(job.args or ()), *kwargs]
