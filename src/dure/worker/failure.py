"""What went wrong in an attempt, as its event tells it: short enough, printable, and without values in its print."""

from __future__ import annotations

import hashlib
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery.exceptions import NotRegistered, Retry
from celery.utils.serialization import UnpickleableExceptionWrapper
from kombu.exceptions import EncodeError
from msgspec import Struct

from dure.job import JobError, Reason

_MESSAGE_LIMIT = 16_384
_TRACEBACK_LIMIT = 65_536
_FRAMES = 5
_OURS = ("celery.app.trace", "dure.worker.")

_REASONS: tuple[tuple[type[BaseException], Reason], ...] = (
    (WorkerLostError, Reason.WORKER_LOST),
    (TimeLimitExceeded, Reason.TIME_LIMIT),
    (SoftTimeLimitExceeded, Reason.TIME_LIMIT),
    (EncodeError, Reason.UNSERIALIZABLE),
    (NotRegistered, Reason.UNREGISTERED),
)


class Failure(Struct, frozen=True):
    error: JobError
    reason: str

    def fields(self) -> dict[str, Any]:
        return {"error": self.error, "reason": self.reason}

    def of_follower(self, failed: str) -> Failure:
        """What a job that will not run for it tells: the same error, as in Celery's result backend, and whose it is.

        It has no fingerprint of that error, which happened once.
        """
        error = JobError(type=self.error.type, message=_clip(f"{failed}: {self.error.message}", _MESSAGE_LIMIT))
        return Failure(error, self.reason)


def failure(exc: BaseException, traceback: str | None = None) -> Failure:
    """Describe an exception; never raises, whatever its own methods do."""
    exc = _cause(exc)
    kind = _type(exc)
    error = JobError(
        type=kind,
        message=_clip(_text(exc), _MESSAGE_LIMIT),
        traceback=_clip(_unicode(traceback), _TRACEBACK_LIMIT) if traceback else None,
        fingerprint=_fingerprint(kind, exc),
    )
    return Failure(error, next((reason for known, reason in _REASONS if isinstance(exc, known)), Reason.ERROR))


def _cause(exc: BaseException) -> BaseException:
    """The task's own exception under Celery's and billiard's wrappings."""
    inner = getattr(exc, "exc", None)
    if type(exc).__name__ == "ExceptionWithTraceback" and isinstance(inner, BaseException):
        exc = inner
    if isinstance(exc, Retry) and isinstance(exc.exc, BaseException):
        return exc.exc
    return exc


def _type(exc: BaseException) -> str:
    if isinstance(exc, UnpickleableExceptionWrapper):
        module, name = exc.exc_module, exc.exc_cls_name
    else:
        module, name = type(exc).__module__, type(exc).__qualname__
    return _unicode(str(name) if module == "builtins" else f"{module}.{name}")


def _text(exc: BaseException) -> str:
    try:
        return _unicode(str(exc))
    except Exception:
        return f"<{type(exc).__name__} that cannot be printed>"


def _unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _clip(text: str, limit: int) -> str:
    """Keep both ends: a traceback's last lines say most."""
    if len(text) <= limit:
        return text
    half = (limit - 5) // 2
    return f"{text[:half]}\n...\n{text[-half:]}"


def _fingerprint(kind: str, exc: BaseException) -> str:
    """Equal for one type from one place in the code, on every machine and after edits elsewhere in the file."""
    places = []
    step: Any = exc.__traceback__
    while step is not None:
        module = str(step.tb_frame.f_globals.get("__name__") or step.tb_frame.f_code.co_filename)
        if not module.startswith(_OURS):
            places.append(f"{module}:{step.tb_frame.f_code.co_name}")
        step = step.tb_next
    return hashlib.sha256("\n".join([kind, *places[-_FRAMES:]]).encode("utf-8", "replace")).hexdigest()[:16]
