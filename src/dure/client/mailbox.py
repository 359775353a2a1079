"""Pushes on their way to one reader, bounded: who reads slowly, or not at all, costs no more than this."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from dure.entry import Told
from dure.event import JobEvent
from dure.wire import Changed

Push = JobEvent | Told | Changed

_BYTES = 1_048_576
_PUSHES = 5_000


class Mailbox:
    def __init__(self) -> None:
        self._pushes: list[tuple[Push, int]] = []
        self._bytes = 0
        self._woken = asyncio.Event()

    def put(self, event: Push, size: int) -> bool:
        """False where there is no room."""
        if self._bytes + size > _BYTES or len(self._pushes) >= _PUSHES:
            return False
        self._pushes.append((event, size))
        self._bytes += size
        self._woken.set()
        return True

    def wake(self) -> None:
        self._woken.set()

    def take(self) -> list[tuple[Push, int]]:
        taken, self._pushes, self._bytes = self._pushes, [], 0
        self._woken.clear()
        return taken

    async def wait(self, timeout: float | None) -> bool:
        """Until something came, or `wake` was called; False when neither did in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._woken.wait()
        return self._woken.is_set()
