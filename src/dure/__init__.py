"""Dure: background jobs on Celery and RabbitMQ, with the row before the message."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dure.client import (
        Dure,
        Edits,
        JobFilter,
        JobHandle,
        Resent,
        Skipped,
        Submission,
        SyncDure,
        SyncJobHandle,
        SyncWorkflowHandle,
        WorkflowHandle,
    )
    from dure.errors import (
        ConfigurationError,
        DureError,
        IdempotencyConflict,
        InvalidSubmission,
        JobEnded,
        JobFailed,
        JobNotEnded,
        LedgerUnavailable,
        LinkDown,
        LinkError,
        ResultTimeout,
        UnknownJob,
        UnknownNode,
        UnknownTask,
        UnknownWorkflow,
        Unroutable,
        WorkflowEnded,
        WorkflowFailed,
        WorkflowNotEnded,
    )
    from dure.feed import FeedEvent, FeedKind
    from dure.job import Job, Reason, State
    from dure.worker.live import TaskCancelled, emit, progress
    from dure.workflows import DAG

__version__ = "0.1.0"

__all__ = [
    "DAG",
    "ConfigurationError",
    "Dure",
    "DureError",
    "Edits",
    "FeedEvent",
    "FeedKind",
    "IdempotencyConflict",
    "InvalidSubmission",
    "Job",
    "JobEnded",
    "JobFailed",
    "JobFilter",
    "JobHandle",
    "JobNotEnded",
    "LedgerUnavailable",
    "LinkDown",
    "LinkError",
    "Reason",
    "Resent",
    "ResultTimeout",
    "Skipped",
    "State",
    "Submission",
    "SyncDure",
    "SyncJobHandle",
    "SyncWorkflowHandle",
    "TaskCancelled",
    "UnknownJob",
    "UnknownNode",
    "UnknownTask",
    "UnknownWorkflow",
    "Unroutable",
    "WorkflowEnded",
    "WorkflowFailed",
    "WorkflowHandle",
    "WorkflowNotEnded",
    "emit",
    "progress",
]

_HOMES = {
    "client": frozenset(
        {
            "Dure",
            "Edits",
            "JobFilter",
            "JobHandle",
            "Resent",
            "Skipped",
            "Submission",
            "SyncDure",
            "SyncJobHandle",
            "SyncWorkflowHandle",
            "WorkflowHandle",
        }
    ),
    "feed": frozenset({"FeedEvent", "FeedKind"}),
    "job": frozenset({"Job", "Reason", "State"}),
    "worker.live": frozenset({"TaskCancelled", "emit", "progress"}),
    "workflows": frozenset({"DAG"}),
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is asked for, so that `import dure` itself stays cheap."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "errors")
    found = globals()[name] = getattr(importlib.import_module(f"dure.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
