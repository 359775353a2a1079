"""Pushes on their way to one reader, bounded: who reads slowly, or not at all, costs no more than this."""

from __future__ import annotations

import asyncio

from dure.entry import Told
from dure.event import JobEvent
from dure.wire import Changed

Push = JobEvent | Told | Changed

_BYTES = 1_048_576
_PUSHES = 5_000


class Mailbox:
    """For one reader, who waits for most pushes: a wait takes a future, and a timer only where it has an end."""

    def __init__(self) -> None:
        self._pushes: list[tuple[Push, int]] = []
        self._bytes = 0
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: Push, size: int) -> bool:
        """False where there is no room."""
        if self._bytes + size > _BYTES or len(self._pushes) >= _PUSHES:
            return False
        self._pushes.append((event, size))
        self._bytes += size
        self.wake()
        return True

    def wake(self) -> None:
        self._woken = True
        if self._waiter is not None:
            _end(self._waiter)

    def take(self) -> list[tuple[Push, int]]:
        taken, self._pushes, self._bytes = self._pushes, [], 0
        self._woken = False
        return taken

    async def wait(self, timeout: float | None) -> bool:
        """Until something came, or `wake` was called; False when neither did in time."""
        if self._woken:
            return True
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = None if timeout is None else loop.call_later(timeout, _end, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        return self._woken


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
