"""Messages out of a RabbitMQ queue, a batch at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from dure import dead
from dure.client.rabbitmq_connection import RabbitConnection, close_channel
from dure.dead import DeadLetter

Item = TypeVar("Item")


class RabbitFeed(Generic[Item]):
    """Reads one queue on a channel of its own, each message as what `read` makes of it.

    It ends with LinkDown when the channel or the queue goes. With no `prefetch` nothing is acknowledged.
    """

    def __init__(
        self,
        connection: RabbitConnection,
        channel: Channel,
        read: Callable[[DeliveredMessage], Item],
        *,
        prefetch: int | None,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._read = read
        self._prefetch = prefetch
        self._arrived: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()
        self._given: int | None = None

    async def start(self, queue: str) -> None:
        if self._prefetch is not None:
            await self._channel.basic_qos(prefetch_count=self._prefetch)
        self._channel.closing.add_done_callback(self._end)
        self._channel.on_consumer_cancel_callbacks.add(self._end)
        await self._channel.basic_consume(queue, self._take, no_ack=self._prefetch is None)

    async def _take(self, delivered: DeliveredMessage) -> None:
        self._arrived.put_nowait(delivered)

    def _end(self, _: object) -> None:
        self._arrived.put_nowait(None)

    async def batch(self, limit: int, within: float | None = None) -> Sequence[Item]:
        try:
            async with asyncio.timeout(within):
                delivered = [await self._arrived.get()]
        except TimeoutError:
            return []
        while len(delivered) < limit and not self._arrived.empty():
            delivered.append(self._arrived.get_nowait())
        items = []
        for message in delivered:
            if message is None:
                self._end(None)  # whoever asks again is told again
                raise self._connection.down(ConnectionError("the feed has ended"))
            self._given = message.delivery_tag
            items.append(self._read(message))
        return items

    async def ack(self) -> None:
        if self._prefetch is not None and self._given is not None:
            with self._connection.speaking():
                await self._channel.basic_ack(self._given, multiple=True)
            self._given = None

    async def close(self) -> None:
        await close_channel(self._channel)


def body(delivered: DeliveredMessage) -> bytes:
    return bytes(delivered.body)


def letter(delivered: DeliveredMessage) -> DeadLetter:
    return dead.read(body(delivered), delivered.header.properties.headers or {}, delivered.routing_key or "")
