"""Celery's request, stopped as the pool can: a coroutine is cancelled, a process killed, a thread ends at what its task
tells next."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any
from weakref import ref

from billiard.common import TERM_SIGNAME
from celery.app.task import Context
from celery.app.trace import fast_trace_task, trace_task_ret
from celery.exceptions import TaskRevokedError
from celery.platforms import signals

from dure.worker import log
from dure.worker.aio import bridge
from dure.worker.aio.attempt import Attempt
from dure.worker.live import cancelling

_KNOWN = {*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"}


class OutOfMemory(Exception):
    """A task's MemoryError. Celery takes that for the worker's own, and would neither tell of it nor acknowledge."""

    def __repr__(self) -> str:
        return str(self)


class Stoppable:
    """Mixed into the request class of each task."""

    id: str
    time_limits: tuple[float | None, float | None]
    on_accepted: Any
    on_success: Any
    on_timeout: Any
    revoked: Any
    task: Any
    _announce_revoked: Any
    _app: Any
    _apply_result: Any
    _body: Any
    _content_encoding: Any
    _content_type: Any
    _payload: Any
    _request_dict: dict[str, Any]
    _type: str

    def __init_subclass__(cls, **options: Any) -> None:
        if "execute_using_pool" in vars(cls):  # made by Celery for one task
            cls.execute_using_pool = _execute  # type: ignore[attr-defined]
        super().__init_subclass__(**options)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        exc = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(exc, MemoryError):
            exc_info.exception = OutOfMemory(repr(exc))
        return super().on_failure(exc_info, *args, **kwargs)  # type: ignore[misc]

    def terminate(self, pool: Any, signal: Any = None) -> None:
        self._stop("terminate", pool, signal)

    def cancel(self, pool: Any, signal: Any = None, **options: Any) -> None:
        self._stop("cancel", pool, signal, **options)

    def _stop(self, how: str, pool: Any, signal: Any, **options: Any) -> None:
        attempt = self._apply_result and self._apply_result()
        tell = partial(getattr(super(), how), pool, signal, **options)
        if isinstance(attempt, Attempt) and attempt.is_remote:
            pool.processes.call(self._stop_in_process, attempt, how, tell, signal)
            return
        if isinstance(attempt, Attempt) and attempt.is_started:
            if attempt.is_over:
                return
            if not attempt.stoppable:
                cancelling.ask(self.id)
                log.asked_to_stop(self.id, "asyncio, for a task that is no async def")
                return
            attempt.stop()
        if pool.is_on_this_thread:
            bridge.spawn(pool.loop, self, tell)
        else:
            tell()

    def _stop_in_process(self, attempt: Attempt, how: str, tell: Callable[[], object], signal: Any) -> None:
        if attempt.is_over:
            return
        if how == "terminate" and attempt.remote is None:  # Celery would begin it first
            attempt.is_over = True
            self._announce_revoked("terminated", True, signals.signum(signal or TERM_SIGNAME), False)
            attempt.free()
        else:
            tell()


def _execute(self: Stoppable, pool: Any, **_: Any) -> Attempt:
    """As Celery's, without decoding the message's body a second time."""
    if self.revoked():
        raise TaskRevokedError(self.id)
    hard, soft = self.time_limits
    is_remote = pool.is_remote(self._type)
    attempt: Attempt = pool.take(
        Attempt(
            self._type,
            self.id,
            _remote_call(self) if is_remote else partial(trace, self.task, self.id, self._request_dict, self._payload),
            self.on_accepted,
            self.on_success,
            self.on_timeout,
            self.on_failure,
            soft or self.task.soft_time_limit,
            hard or self.task.time_limit,
            self.revoked,
        )
    )
    self._apply_result = ref(attempt)
    return attempt


def _remote_call(self: Stoppable) -> partial[Any]:
    """Celery's tracer in a process, which reads the body itself."""
    body = self._body if isinstance(self._body, (str, bytes)) else bytes(self._body)
    trace = fast_trace_task if self._app.use_fast_trace_task else trace_task_ret
    return partial(trace, self._type, self.id, self._request_dict, body, self._content_type, self._content_encoding)


def trace(task: Any, job_id: str, request: dict[str, Any], payload: Any) -> tuple[int, Any, float]:
    """Celery's tracer, with what it finds in a message and gives to a request."""
    args, kwargs, embed = payload
    # Celery finds them by copying the request and taking sixty names out of it.
    if request.get("headers") is None and (headers := {name: request[name] for name in request.keys() - _KNOWN}):
        request["headers"] = headers
    request.update(args=args, kwargs=kwargs, is_eager=False, **embed or {})
    retval, info, runtime, text = task.__trace__(job_id, args, kwargs, request)
    return (1, retval, runtime) if info else (0, text, runtime)


@cache
def stoppable(request: type) -> type:
    if issubclass(request, Stoppable):
        return request
    return type(request.__name__, (Stoppable, request), {"__module__": request.__module__})
