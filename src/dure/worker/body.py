"""What we put around a task's body: its result as JSON while it can still fail, and retries that the caller asked for.

Both stand around `run`, as Celery's own autoretry does, so a result that is no JSON and an exhausted retry are
ordinary exceptions of the task: backend, errbacks, signals and events all tell the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any

from celery import Task
from celery.app.task import get_actual_ignore_result  # type: ignore[attr-defined]
from celery.exceptions import Ignore, Reject, Retry

from dure.worker.live.attempts import flush
from dure.worker.result import WorkflowTooLarge, encode
from dure.worker.retries import again


class Encoded:
    """The JSON of the value that the body returned last, kept for the tracer that runs it."""

    value: Any = None
    json: bytes | None = None


encoded: ContextVar[Encoded | None] = ContextVar("encoded", default=None)


def wrap(task: Task[..., Any], queue_type: str) -> None:
    """Put the body of a registered task in our wrapping, once."""
    if not hasattr(task.run, "__dure__"):
        task.run = _wrapped(task, task.run, queue_type)  # type: ignore[method-assign]


def _wrapped(task: Task[..., Any], body: Callable[..., Any], queue_type: str) -> Callable[..., Any]:
    @wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        request = task.request
        if request.called_directly or request.is_eager:
            return body(*args, **kwargs)
        try:
            try:
                value = body(*args, **kwargs)
            finally:
                flush()  # before its result is stored, or its retry sent
        except (Retry, Ignore, Reject):
            raise
        except Exception as exc:
            retry = again(task, exc, queue_type)
            if retry is None:
                raise
            raise retry from exc
        if not get_actual_ignore_result(task, request):
            _keep(task, value)
        return value

    run.__dure__ = True  # type: ignore[attr-defined]
    return run


def _keep(task: Task[..., Any], value: Any) -> None:
    box = encoded.get()
    try:
        json = encode(value)
    except WorkflowTooLarge:
        raise
    except Exception:
        if task.app.conf.result_serializer == "json":
            raise
        return
    if box is not None:
        box.value, box.json = value, json
