"""Celery's request, stopped as the pool can: a coroutine is cancelled, a thread at what its task tells next."""

from __future__ import annotations

from functools import cache, partial
from typing import Any
from weakref import ref

from celery.app.task import Context
from celery.exceptions import TaskRevokedError

from dure.worker import log
from dure.worker.aio import bridge
from dure.worker.aio.attempt import Attempt
from dure.worker.live import cancelling

_KNOWN = {*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"}


class Stoppable:
    """Mixed into the request class of each task."""

    id: str
    time_limits: tuple[float | None, float | None]
    on_accepted: Any
    on_success: Any
    on_timeout: Any
    revoked: Any
    task: Any
    _apply_result: Any
    _payload: Any
    _request_dict: dict[str, Any]
    _type: str

    def __init_subclass__(cls, **options: Any) -> None:
        if "execute_using_pool" in vars(cls):  # made by Celery for one task
            cls.execute_using_pool = _execute  # type: ignore[attr-defined]
        super().__init_subclass__(**options)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        self._stop("terminate", pool, signal)

    def cancel(self, pool: Any, signal: Any = None, **options: Any) -> None:
        self._stop("cancel", pool, signal, **options)

    def _stop(self, how: str, pool: Any, signal: Any, **options: Any) -> None:
        attempt = self._apply_result and self._apply_result()
        if isinstance(attempt, Attempt) and attempt.is_started:
            if attempt.is_over:
                return
            if not attempt.stoppable:
                cancelling.ask(self.id)
                log.asked_to_stop(self.id, "asyncio, for a task that is no async def")
                return
            attempt.stop()
        tell = partial(getattr(super(), how), pool, signal, **options)
        if pool.is_on_this_thread:
            bridge.spawn(pool.loop, self, tell)
        else:
            tell()


def _execute(self: Stoppable, pool: Any, **_: Any) -> Attempt:
    """As Celery's, without decoding the message's body a second time."""
    if self.revoked():
        raise TaskRevokedError(self.id)
    hard, soft = self.time_limits
    attempt: Attempt = pool.take(
        Attempt(
            self._type,
            self.id,
            partial(trace, self.task, self.id, self._request_dict, self._payload),
            self.on_accepted,
            self.on_success,
            self.on_timeout,
            soft or self.task.soft_time_limit,
            hard or self.task.time_limit,
        )
    )
    self._apply_result = ref(attempt)
    return attempt


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
