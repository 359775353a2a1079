"""Group commit: what arrives while one batch is on its way travels together in the next.

The first item leaves at once; while its batch is being written, others gather. So a lone caller waits for nothing,
and a thousand callers share one transaction. Who is cancelled takes only their own item back, and only before its
batch has left. Where nobody waits for the answer, a batch may linger so that fewer and larger ones are written.
Where items differ in size, each weighs something; one that is heavier than a batch travels alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from dure.errors import DureError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Closed(DureError):
    """The batcher was closed before the item left."""


class Full(DureError):
    """So many items wait already that a new one would wait too long."""


class Batcher(Generic[Item, Answer]):
    """Hands items to `write` in batches, in order; each `put` gets its own answer or the batch's exception."""

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        size: int = 500,
        bound: int = 10_000,
        linger: float = 0.0,
        weigh: Callable[[Item], int] = lambda _: 1,
    ) -> None:
        self._write = write
        self._weigh = weigh
        self._size = size
        self._bound = bound
        self._linger = linger
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._arrived = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Add an item; the future resolves when its batch is written. Raises Full or Closed at once."""
        if self._closed:
            raise Closed("closed")
        if len(self._waiting) >= self._bound:
            raise Full(f"{len(self._waiting)} wait already")
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._arrived.set()
        return future

    async def close(self) -> None:
        """Write what waits, then end."""
        self._closed = True
        self._arrived.set()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if self._linger and not self._closed:
                await asyncio.sleep(self._linger)
            # Who has gone before their batch left, as after a time limit, has been told that nothing was written.
            waiting = [entry for entry in self._waiting if not entry[1].cancelled()]
            number = self._fitting(waiting)
            batch, self._waiting = waiting[:number], waiting[number:]
            if not self._waiting:
                self._arrived.clear()
            if batch:
                await self._flush(batch)
            elif self._closed:
                return
            if self._closed:
                self._arrived.set()

    def _fitting(self, waiting: list[tuple[Item, asyncio.Future[Answer]]]) -> int:
        """How many of them make a batch."""
        weight = 0
        for number, (item, _) in enumerate(waiting):
            weight += self._weigh(item)
            if weight > self._size:
                return max(number, 1)
        return len(waiting)

    async def _flush(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._write([item for item, _ in batch])
        except Exception as exc:
            for _, future in batch:
                if not future.done():
                    future.set_exception(exc)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
