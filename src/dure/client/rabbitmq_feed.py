"""Events out of a RabbitMQ queue, a batch at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import AMQPError

from dure.errors import LinkDown
from dure.link import EventBatch

_PREFETCH = 2000


class RabbitFeed:
    """Reads one queue on a channel of its own; a lost channel ends it with LinkDown."""

    def __init__(
        self, channel: AbstractChannel, down: Callable[[BaseException | None], LinkDown], *, acknowledges: bool
    ) -> None:
        self._channel = channel
        self._down = down
        self._acknowledges = acknowledges
        self._arrived: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()
        self._given: int | None = None

    async def start(self, queue: str) -> None:
        if self._acknowledges:
            await self._channel.basic_qos(prefetch_count=_PREFETCH)
        self._channel.closing.add_done_callback(lambda _: self._arrived.put_nowait(None))
        await self._channel.basic_consume(queue, self._take, no_ack=not self._acknowledges)

    async def _take(self, delivered: DeliveredMessage) -> None:
        self._arrived.put_nowait(delivered)

    async def batch(self, limit: int) -> EventBatch:
        delivered = [await self._arrived.get()]
        while len(delivered) < limit and not self._arrived.empty():
            delivered.append(self._arrived.get_nowait())
        bodies = []
        for message in delivered:
            if message is None:
                raise self._down(None)
            self._given = message.delivery_tag
            bodies.append(bytes(message.body))
        return bodies

    async def ack(self) -> None:
        if self._acknowledges and self._given is not None:
            try:
                await self._channel.basic_ack(self._given, multiple=True)
            except (AMQPError, OSError, RuntimeError) as exc:
                raise self._down(exc) from exc
            self._given = None

    async def close(self) -> None:
        with suppress(AMQPError, OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(2):
                await self._channel.close()
