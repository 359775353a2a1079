"""A time at which whatever a task waits for ends, one wait after another.

Waits are many, and hardly one of them lasts so long: a timer for each, as `asyncio.timeout` sets it, is a good part of
what a push to a reader costs. Here one timer serves them all. It is set anew when it has run out, and only moved where
a wait is to end before it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class DeadlinePassed(TimeoutError):
    """Of this deadline, and not of something that was waited for."""


class Deadline:
    """Of the task that makes it. `with deadline.within(seconds):` raises DeadlinePassed when the time is over."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - whoever waits is a task
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._passed = False
        self._cancelled_before = 0

    def within(self, seconds: float) -> Self:
        self._at = self._loop.time() + seconds
        if self._timer is None or self._timer_at > self._at:
            self._set_timer(self._at)
        return self

    def now(self) -> None:
        """The time is over for what is waited for, if anything is."""
        if self._at is not None:
            self.within(0.0)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> None:
        self._cancelled_before = self._task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._at = None
        if self._passed:
            self._passed = False
            if self._task.uncancel() <= self._cancelled_before and kind is asyncio.CancelledError:
                raise DeadlinePassed from exc

    def _set_timer(self, at: float) -> None:
        self.close()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._at is None or self._passed:
            return
        if self._loop.time() < self._at:
            self._set_timer(self._at)
        else:
            self._passed = True
            self._task.cancel()
