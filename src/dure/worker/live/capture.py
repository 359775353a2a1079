"""What a task logs, with Python's own `logging`, becomes log lines of its job.

Only the text of a message is taken: no traceback, no `extra`, no local variables. Passwords in URLs are left out.

Celery sets its root logger to WARNING unless `-l` says otherwise, so INFO would never come to us. Where a logger lets
less through than is to be captured, its level is lowered, and the handlers that it has get a filter that keeps from
them what they did not get before.
"""

from __future__ import annotations

import logging
import re

from dure.worker.live.attempt import Attempt, current

# Celery gives the loggers of `get_task_logger` a root of their own, which passes nothing on.
_ROOTS = ("", "celery.task")
_TASKS_OWN = ("celery.task", "celery.redirected")
_NOT_THE_TASKS = ("celery", "kombu", "amqp", "billiard", "dure", "vine")

_PASSWORD = re.compile(r"(\w+://[^\s:/@]*:)[^\s/@]+@")


def listen(level: str) -> None:
    """Capture from `level` on, in this process. Call it when Celery has set up its logging."""
    wanted = logging.getLevelNamesMapping()[level]
    for name in _NOT_THE_TASKS:
        _keep_level(logging.getLogger(name))
    for name in _ROOTS:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, Capture) for handler in logger.handlers):
            _lower(logger, wanted)
            logger.addHandler(Capture(wanted))


class Capture(logging.Handler):
    def createLock(self) -> None:  # noqa: N802
        """None is needed: what takes the lines has its own."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        attempt = current.get()
        if not isinstance(attempt, Attempt) or not _is_tasks(record.name) or hasattr(record, "dure_captured"):
            return
        record.dure_captured = True  # it may come by both roots
        try:
            attempt.line(record.levelname, record.name, _text(record))
        except Exception:
            self.handleError(record)


class _AsBefore(logging.Filter):
    """Passes what came before any level was lowered."""

    def filter(self, record: logging.LogRecord) -> bool:
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None and not logger.level:
            logger = logger.parent
        return logger is None or record.levelno >= _lowered.get(logger.name, 0)


# The level that each had before.
_lowered: dict[str, int] = {}


def _keep_level(logger: logging.Logger) -> None:
    """Celery's own loggers shall not work for nothing."""
    if not logger.level:
        logger.setLevel(logger.getEffectiveLevel())


def _lower(logger: logging.Logger, wanted: int) -> None:
    before = logger.getEffectiveLevel()
    if before > wanted:
        _lowered[logger.name] = before
        logger.setLevel(wanted)
        for handler in logger.handlers:
            handler.addFilter(_AsBefore())


def _is_tasks(name: str) -> bool:
    return name.startswith(_TASKS_OWN) or name.partition(".")[0] not in _NOT_THE_TASKS


def _text(record: logging.LogRecord) -> str:
    text = record.getMessage()
    return _PASSWORD.sub(r"\1***@", text) if "://" in text else text
