"""One attempt in the pool: what Celery asked for, and how far it is.

    waiting ──▶ running ──▶ over          its end is told by Celery's callbacks
       │           ├─ soft time limit ──▶ SoftTimeLimitExceeded is raised where the coroutine waits
       │           ├─ hard time limit ──▶ over: told as failed, the slot is free; then cancelled, and if that is not
       │           │                      heeded, left alone
       │           └─ stopped ──────────▶ over: whoever stopped it has told why; then cancelled
       └─ revoked, expired or terminated ─▶ over

What a coroutine does after its attempt is over is told to nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from dure.worker.aio import bridge
from dure.worker.aio.interrupt import Interruptible

Callback = Callable[..., object]


class Over(BaseException):
    """Raised in Celery's tracer to end it without a word: the attempt's end was told already."""


class CancelledFromWithin(Exception):
    """The coroutine ended by a cancellation that nobody asked the worker for."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Attempt:
    name: str
    id: str
    call: Callable[[], Any]
    on_accepted: Callback | None
    on_end: Callback | None
    on_timeout: Callback | None
    on_error: Callback | None = None  # of what a process could not end
    soft_limit: float | None = None
    hard_limit: float | None = None
    is_revoked: Callable[[], bool] = lambda: False  # or expired; asked when it begins, long after it came perhaps
    stoppable: bool = True
    is_remote: bool = False  # runs in a process
    is_started: bool = False
    is_over: bool = False
    free: Callable[[], object] = field(default=lambda: None)
    task: asyncio.Task[Any] | None = None
    body: Awaitable[Any] | None = None  # while it runs
    remote: Any = None  # what the pool of processes gave for it
    alarms: list[asyncio.TimerHandle] = field(default_factory=list)

    def wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The task's body, called in the attempt's greenlet."""
        if self.is_over:
            coroutine.close()
            raise Over
        self.body = Interruptible(coroutine) if self.soft_limit else coroutine
        try:
            return bridge.wait(self.body)
        except asyncio.CancelledError as exc:
            if self.is_over:
                raise Over from exc
            raise CancelledFromWithin("the coroutine was cancelled from within") from exc
        finally:
            self.body = None
            if self.is_over:
                raise Over

    def exceed_soft_limit(self) -> None:
        if isinstance(self.body, Interruptible) and not self.is_over:
            if self.on_timeout is not None:
                self.on_timeout(True, self.soft_limit)
            self.body.interrupt(SoftTimeLimitExceeded(self.soft_limit))

    def stop(self) -> bool:
        """Its end is told by the caller. False where it cannot be stopped, or is over."""
        if not self.stoppable or self.is_over:
            return False
        self.is_over = True
        self.free()
        if self.body is not None and self.task is not None:
            self.task.cancel()
        return True

    # What Celery calls on what a pool gives it.

    def terminate(self, signal: Any = None) -> None:
        if self.remote is not None:
            self.remote.terminate(signal)
        elif self.is_started:
            self.stop()
