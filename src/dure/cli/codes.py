"""Exit codes, for scripts."""

from __future__ import annotations

from enum import IntEnum

from dure.errors import (
    ConfigurationError,
    DureError,
    IdempotencyConflict,
    InvalidCursor,
    InvalidSubmission,
    JobEnded,
    JobFailed,
    JobNotEnded,
    LedgerUnavailable,
    LinkError,
    ResultTimeout,
    UnknownJob,
    UnknownNode,
    UnknownTask,
    UnknownWorkflow,
    WorkflowEnded,
    WorkflowFailed,
    WorkflowNotEnded,
)


class Code(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    UNKNOWN = 3
    TIMEOUT = 4
    UNAVAILABLE = 5
    INTERRUPTED = 130


EPILOG = (
    "Exit codes: [b]0[/b] done · [b]1[/b] it failed, or a problem was found · [b]2[/b] usage or configuration · "
    "[b]3[/b] no such job, workflow or task · [b]4[/b] timeout · [b]5[/b] ledger or broker unavailable · "
    "[b]130[/b] Ctrl-C"
)

_CODES: tuple[tuple[type[DureError], Code], ...] = (
    (ConfigurationError, Code.USAGE),
    (InvalidSubmission, Code.USAGE),
    (IdempotencyConflict, Code.USAGE),
    (InvalidCursor, Code.USAGE),
    (UnknownTask, Code.UNKNOWN),
    (UnknownJob, Code.UNKNOWN),
    (UnknownWorkflow, Code.UNKNOWN),
    (UnknownNode, Code.UNKNOWN),
    (ResultTimeout, Code.TIMEOUT),
    (LedgerUnavailable, Code.UNAVAILABLE),
    (LinkError, Code.UNAVAILABLE),
    (JobFailed, Code.FAILED),
    (JobEnded, Code.FAILED),
    (JobNotEnded, Code.FAILED),
    (WorkflowFailed, Code.FAILED),
    (WorkflowEnded, Code.FAILED),
    (WorkflowNotEnded, Code.FAILED),
)


def code_of(error: DureError) -> Code:
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.FAILED)
