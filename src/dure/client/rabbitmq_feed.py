"""Messages out of a RabbitMQ queue, a batch at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from dure import dead
from dure.client.rabbitmq_connection import RabbitConnection, close_channel
from dure.dead import DeadLetter
from dure.errors import LinkDown
from dure.wire import EVENT_EXCHANGE

Item = TypeVar("Item")

_ANSWER_SECONDS = 10
_ONE_ANSWER = 100  # keys


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


class RabbitWatchFeed(RabbitFeed[bytes]):
    """Reads a queue of its own, whose bindings come and go.

    What it has read it acknowledges by itself, some at a time, so that the broker has no more on the way than a slow
    reader can be given; the rest waits in the queue, which is bounded.

    A binding takes the broker a millisecond or more, and so does its end. Many readers may leave at once; so `unbind`
    only says what is not wanted, and it goes one key at a time, between the keys that somebody waits for.
    """

    def __init__(self, connection: RabbitConnection, channel: Channel, *, prefetch: int) -> None:
        super().__init__(connection, channel, body, prefetch=prefetch)
        self._most = prefetch
        self._unsettled = 0
        self._queue = ""
        self._wanted: set[str] = set()
        self._leaving: dict[str, None] = {}
        self._letting_go: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def start(self, queue: str) -> None:
        self._queue = queue
        await super().start(queue)

    async def batch(self, limit: int, within: float | None = None) -> Sequence[bytes]:
        if self._unsettled * 2 >= self._most:
            self._unsettled = 0
            await self.ack()
        items = await super().batch(limit, within)
        self._unsettled += len(items)
        return items

    async def bind(self, keys: Collection[str]) -> None:
        self._wanted.update(keys)
        # Whoever asks may be cancelled; aiormq would close the channel, and with it the feed of all others.
        await asyncio.shield(self._bind(list(keys)))

    async def unbind(self, keys: Collection[str]) -> None:
        self._wanted.difference_update(keys)
        self._leaving |= dict.fromkeys(keys)
        if self._leaving and (self._letting_go is None or self._letting_go.done()):
            self._letting_go = asyncio.create_task(self._let_go(), name="dure-rabbitmq-unbind")

    async def close(self) -> None:
        if self._letting_go is not None:
            self._letting_go.cancel()
        await super().close()

    async def _bind(self, keys: Sequence[str]) -> None:
        async with self._asking():
            keys = [key for key in keys if key in self._wanted]
            # A broker does what a channel asks in its order, so the answer to the last is that to all.
            for n, key in enumerate(keys, 1):
                async with asyncio.timeout(_ANSWER_SECONDS):
                    if n == len(keys) or n % _ONE_ANSWER == 0:
                        await self._channel.queue_bind(self._queue, EVENT_EXCHANGE, key)
                    else:
                        await self._channel.queue_bind(self._queue, EVENT_EXCHANGE, key, nowait=True)

    async def _let_go(self) -> None:
        with suppress(LinkDown):  # then the queue is gone as well
            while self._leaving:
                async with self._asking(), asyncio.timeout(_ANSWER_SECONDS):
                    key = next(iter(self._leaving))
                    del self._leaving[key]
                    if key not in self._wanted:
                        await self._channel.queue_unbind(self._queue, EVENT_EXCHANGE, key)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        async with self._one_at_a_time:
            with self._connection.speaking():
                yield


def body(delivered: DeliveredMessage) -> bytes:
    return bytes(delivered.body)


def letter(delivered: DeliveredMessage) -> DeadLetter:
    return dead.read(body(delivered), delivered.header.properties.headers or {}, delivered.routing_key or "")
