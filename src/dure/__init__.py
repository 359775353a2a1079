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
        UnknownTask,
        Unroutable,
    )
    from dure.job import Job, Reason, State

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "Dure",
    "DureError",
    "Edits",
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
    "UnknownJob",
    "UnknownTask",
    "Unroutable",
]

_CLIENT = frozenset(
    {"Dure", "Edits", "JobFilter", "JobHandle", "Resent", "Skipped", "Submission", "SyncDure", "SyncJobHandle"}
)
_JOB = frozenset({"Job", "Reason", "State"})


def __getattr__(name: str) -> Any:
    """Load a public name when it is asked for, so that `import dure` itself stays cheap."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "client" if name in _CLIENT else "job" if name in _JOB else "errors"
    return getattr(importlib.import_module(f"dure.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
