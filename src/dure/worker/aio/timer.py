"""kombu's timer, woken by the asyncio loop for its next entry instead of being asked at each turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from kombu.asynchronous.timer import Timer


class LoopTimer(Timer):
    """The heap of entries is kombu's, for Celery looks into it. What an entry raises goes to `on_raise`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_raise: Callable[[BaseException], None]) -> None:
        super().__init__(max_interval=10.0)
        self._loop = loop
        self._on_raise = on_raise
        self._thread = threading.get_ident()
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = float("inf")

    def _enter(self, eta: float, priority: int, entry: Any, *options: Any) -> Any:
        super()._enter(eta, priority, entry, *options)
        if eta < self._armed_for:
            if threading.get_ident() == self._thread:
                self._arm()
            else:
                self._loop.call_soon_threadsafe(self._arm)
        return entry

    def clear(self) -> None:
        super().clear()
        self._disarm()

    def stop(self) -> None:
        self._disarm()

    def _arm(self) -> None:
        queue: Any = self._queue
        self._disarm()
        if queue and not self._loop.is_closed():
            self._armed_for = queue[0][0]
            self._handle = self._loop.call_later(max(0.0, self._armed_for - monotonic()), self._fire)

    def _disarm(self) -> None:
        handle, self._handle, self._armed_for = self._handle, None, float("inf")
        if handle is not None:
            handle.cancel()

    def _fire(self) -> None:
        self._handle = None
        # Entries that enter themselves anew meanwhile shall not arm at each of them.
        self._armed_for = float("-inf")
        due = []
        for delay, entry in self:
            if entry is None:
                break
            del delay
            due.append(entry)
        for entry in due:
            if entry.canceled:
                continue
            try:
                entry()
            except BaseException as exc:
                self._on_raise(exc)
        self._arm()
