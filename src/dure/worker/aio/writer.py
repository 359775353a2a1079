"""Results of many attempts in one write.

    attempt's greenlet   put(item) ┄┄┄ waits ┄┄┄▶ goes on: event, acknowledgement
    loop                       ╰─▶ gather ─▶ one batch on its way at a time; what comes meanwhile is the next
    thread                                    store(batch)

Nothing is held back for a fuller batch: an item alone is written at once, and the more there is to do the fuller the
batches become by themselves. A batch that cannot be written is an error for each of its attempts; whether to wait for
a backend that is away is decided by `store`, in its thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

_T = TypeVar("_T")

_BATCH = 1000


class Writer(Generic[_T]):
    def __init__(self, store: Callable[[Sequence[_T]], object]) -> None:
        self._store = store
        self._waiting: list[tuple[_T, asyncio.Future[None]]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dure-results")
        self._is_writing = False

    def put(self, item: _T) -> asyncio.Future[None]:
        """From the loop's thread; done when the item is stored."""
        loop = asyncio.get_running_loop()
        stored = loop.create_future()
        self._waiting.append((item, stored))
        if not self._is_writing:
            self._is_writing = True
            loop.call_soon(self._write, loop)
        return stored

    def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        if not batch:
            self._is_writing = False
            return
        items = [item for item, _ in batch]
        writing = loop.run_in_executor(self._thread, self._store, items)
        writing.add_done_callback(lambda written: self._tell(loop, batch, written))

    def _tell(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[tuple[_T, asyncio.Future[None]]],
        written: asyncio.Future[object],
    ) -> None:
        error = written.exception()
        for _, stored in batch:
            if stored.done():
                continue
            if error is None:
                stored.set_result(None)
            else:
                stored.set_exception(error)
        self._write(loop)
