"""A coroutine into which an exception can be thrown where it waits, as a signal throws one into a process.

asyncio can only cancel. So the task is cancelled, and on its way into the coroutine the cancellation becomes what it
stands for: `SoftTimeLimitExceeded` is raised at the `await`, the coroutine may catch it, clean up and return.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class Interruptible(Generic[_T]):
    """Awaited in `task`, the one that `interrupt` cancels."""

    def __init__(self, coroutine: Coroutine[Any, Any, _T]) -> None:
        self._coroutine = coroutine
        self._pending: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None

    def interrupt(self, exc: BaseException) -> None:
        """From the loop's thread."""
        self._pending = exc
        if self._task is not None:
            self._task.cancel()

    def __await__(self) -> Generator[Any, Any, _T]:
        self._task = task = asyncio.current_task()
        coroutine = self._coroutine
        step = partial(coroutine.send, None)
        if self._pending is not None and task is not None:
            task.cancel()
        while True:
            try:
                waited_for = step()
            except StopIteration as stop:
                self._task = None
                return stop.value  # type: ignore[no-any-return]
            try:
                value = yield waited_for
            except asyncio.CancelledError as cancelled:
                step = partial(coroutine.throw, self._meant(cancelled))
            except BaseException as exc:
                step = partial(coroutine.throw, exc)
            else:
                step = partial(coroutine.send, value)

    def _meant(self, cancelled: BaseException) -> BaseException:
        exc, self._pending = self._pending, None
        if exc is None:
            return cancelled
        if self._task is not None:
            self._task.uncancel()
        return exc
