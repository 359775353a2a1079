"""Around Celery's tracer: the result's JSON, the exception's description and the place of the last entry that was told
travel from the pool to the request.

Celery makes a tracer for each task when the consumer starts, and in each pool process. Both times we wrap it: the
pool hands back a string for a success and an ExceptionInfo for a failure, over a pipe where it is a process, and
both can carry ours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.app.trace import TraceInfo, report_internal_error, trace_ok_t
from celery.exceptions import Reject
from celery.states import FAILURE, REVOKED

from dure.worker.body import Encoded, encoded
from dure.worker.failure import failure
from dure.worker.live.attempts import last_told
from dure.worker.live.cancelling import TaskCancelled
from dure.worker.result import Result, encode


def wrap_tracers(app: Celery, limit: int) -> None:
    """Wrap the tracer of every task, once; `limit` is the most bytes of a result's JSON."""
    for task in app.tasks.values():
        tracer = task.__trace__
        if tracer is not None and not hasattr(tracer, "__dure__"):
            task.__trace__ = _wrapped(task, tracer, limit)


def _wrapped(task: Any, tracer: Callable[..., Any], limit: int) -> Callable[..., Any]:
    @wraps(tracer)
    def trace(uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        box = Encoded()
        token = encoded.set(box)
        last_told.set(None)
        try:
            outcome = tracer(uuid, args, kwargs, request)
        except Reject:
            raise
        except TaskCancelled as exc:
            outcome = trace_ok_t(ExceptionInfo(internal=True), TraceInfo(REVOKED, exc), 0.0, None)
        except Exception as exc:
            # Celery's tracer stumbles over an error that it cannot store. A thread would take it to nobody.
            outcome = trace_ok_t(report_internal_error(task, exc), TraceInfo(FAILURE, exc), 0.0, None)
        finally:
            encoded.reset(token)
        if outcome.info is not None:
            _describe(outcome)
            outcome.retval.told = last_told.get()
        elif outcome.retstr is not None:
            return outcome._replace(retstr=_with_told(_result(task, request, outcome, box, limit)))
        return outcome

    trace.__dure__ = True  # type: ignore[attr-defined]
    return trace


def _describe(outcome: Any) -> None:
    exc = outcome.info.retval
    if isinstance(exc, BaseException):
        outcome.retval.dure = failure(exc, outcome.retval.traceback)


def _with_told(text: str) -> str:
    told = last_told.get()
    if told is None:
        return text
    result = text if isinstance(text, Result) else Result(text)
    result.told = told
    return result


def _result(task: Any, request: Any, outcome: Any, box: Encoded, limit: int) -> str:
    """A task class with a `__call__` of its own may return something else than its body did."""
    ignored = (request or {}).get("ignore_result")
    if task.ignore_result if ignored is None else ignored:
        return str(outcome.retstr)
    json = box.json if box.json is not None and box.value is outcome.retval else None
    try:
        return Result.of(outcome.retstr, json if json is not None else encode(outcome.retval), limit)
    except Exception:
        return str(outcome.retstr)
