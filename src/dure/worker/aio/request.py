"""Celery's request, stopped as the pool can: a coroutine is cancelled, a thread runs to its end."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from kombu.asynchronous import get_event_loop

from dure.worker import log
from dure.worker.aio import bridge
from dure.worker.aio.attempt import Attempt
from dure.worker.aio.hub import LoopHub


class Stoppable:
    """Mixed into the request class of each task."""

    id: str
    _apply_result: Any

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
                log.cannot_stop(self.id, "asyncio, for a task that is no async def")
                return
            attempt.stop()
        tell = partial(getattr(super(), how), pool, signal, **options)
        hub = get_event_loop()
        if isinstance(hub, LoopHub):
            bridge.spawn(hub.aio, self, tell)
        else:
            tell()


@cache
def stoppable(request: type) -> type:
    if issubclass(request, Stoppable):
        return request
    return type(request.__name__, (Stoppable, request), {"__module__": request.__module__})
