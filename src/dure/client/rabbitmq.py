"""The link to RabbitMQ, on aiormq.

Two connections: one publishes, the other reads and asks, so that events are read and acknowledged while the broker
blocks its publishers. Each feed has a channel of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import ChannelNotFoundEntity

from dure.client.rabbitmq_connection import RabbitConnection, close_channel
from dure.client.rabbitmq_feed import Item, RabbitFeed, RabbitWatchFeed, body, letter
from dure.client.rabbitmq_publish import RabbitPublisher
from dure.client.rabbitmq_queues import RabbitQueues
from dure.client.replies import question
from dure.client.revoking import orders, portions
from dure.dead import DeadLetter
from dure.errors import LinkDown, QueueRefused, Unroutable
from dure.link import WATCH_LIMIT, EventFeed, WatchFeed
from dure.node import QueueDepth
from dure.revocation import STREAM, Revocation, encode
from dure.settings import Settings
from dure.wire import CONTROL_EXCHANGE, REPLY_EXCHANGE, Message, event_message

log = structlog.get_logger("dure")

_CONFIRM_SECONDS = 15
_SETUP_SECONDS = 10
_EVENTS_AHEAD = 2000
_WATCHED_AHEAD = 100  # a message may have a megabyte
_LETTERS_AHEAD = 100  # whole messages, of any size


class RabbitLink:
    """`settings` say where the broker is, what its queues are called and how new ones are made.

    `confirm_timeout` is how many seconds a batch may take.
    """

    def __init__(self, settings: Settings, *, confirm_timeout: float = _CONFIRM_SECONDS) -> None:
        self._reading = RabbitConnection(settings.broker, "reads", self._opened)
        self._publishing = RabbitConnection(settings.broker, "publishes")
        self._publisher = RabbitPublisher(self._publishing, timeout=confirm_timeout)
        self._queues = RabbitQueues(self._reading, settings)
        self._dead_queue = settings.dead_queue
        self.url = self._reading.url

    @property
    def connected(self) -> bool:
        return self._publishing.is_open and self._reading.is_open and not self._publishing.blocked

    def _opened(self) -> None:
        self._queues.forget()

    async def open(self) -> None:
        await asyncio.gather(self._publishing.open(), self._reading.open())

    async def close(self) -> None:
        await asyncio.gather(self._publishing.close(), self._reading.close())

    async def ping(self) -> None:
        if not self._publishing.is_open:
            raise self._publishing.down()
        async with self._reading.question():
            pass

    async def publish(self, messages: Sequence[Message]) -> Sequence[LinkDown | Unroutable | None]:
        outcomes = await self._publisher.publish(messages)
        for outcome in outcomes:
            if isinstance(outcome, Unroutable):
                self._queues.forget(outcome.queue)
        return outcomes

    async def declare_queue(self, name: str, *, defined_by_application: bool = False) -> None:
        await self._queues.declare(name, defined_by_application=defined_by_application)

    async def holds(self, queue: str, ids: Sequence[str]) -> frozenset[str] | None:
        """RabbitMQ tells only its consumers what a queue holds; what can be known is that there is no such queue."""
        exists = (await self._queues.depth(queue)).exists
        return None if exists and ids else frozenset()

    async def queues(self, names: Iterable[str]) -> Sequence[QueueDepth]:
        return [await self._queues.depth(name) for name in names]

    async def events(self, patterns: Sequence[str], *, durable: bool) -> EventFeed:
        queue = await self._queues.bind_events(patterns, durable=durable)
        return await self._feed(queue, body, prefetch=_EVENTS_AHEAD if durable else None)

    async def watch(self, *, limit: int = WATCH_LIMIT) -> WatchFeed:
        async with self._channel_of_a_feed() as channel:
            feed = RabbitWatchFeed(self._reading, channel, prefetch=min(_WATCHED_AHEAD, limit))
            await feed.start(await self._queues.watch_queue(channel, limit))
        return feed

    async def tell(self, body: bytes, routing_key: str, cc: Sequence[str] = ()) -> None:
        await self._publisher.whisper(event_message(body, routing_key, cc))

    async def dead_letters(self) -> RabbitFeed[DeadLetter]:
        """Raises QueueRefused where the broker lets us make no queue of dead letters."""
        self._queues.forget(self._dead_queue)
        await self._queues.declare_dead()
        return await self._feed(self._dead_queue, letter, prefetch=_LETTERS_AHEAD)

    async def _feed(
        self, queue: str, read: Callable[[DeliveredMessage], Item], *, prefetch: int | None
    ) -> RabbitFeed[Item]:
        async with self._channel_of_a_feed() as channel:
            feed = RabbitFeed(self._reading, channel, read, prefetch=prefetch)
            await feed.start(queue)
        return feed

    @asynccontextmanager
    async def _channel_of_a_feed(self) -> AsyncIterator[Channel]:
        """It is closed where the feed does not begin."""
        channel = await self._reading.channel()
        try:
            with self._reading.speaking():
                async with asyncio.timeout(_SETUP_SECONDS):
                    yield channel
        except BaseException:
            await close_channel(channel)
            raise

    async def revoke(self, ids: Sequence[str], *, terminate: bool) -> None:
        revoked = portions(ids, terminate=terminate, at=time.time())
        if not revoked:
            return
        try:
            await self._record(revoked)
        except (QueueRefused, Unroutable) as exc:
            log.warning("cancelled jobs are told to running workers only", error=str(exc))
        for order in orders(revoked):
            await self.broadcast("revoke", order, timeout=0)

    async def _record(self, revoked: Sequence[Revocation]) -> None:
        properties = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2}
        messages = [Message("", STREAM, encode(portion), {}, properties) for portion in revoked]
        await self._queues.declare_stream()
        if any(isinstance(outcome, Unroutable) for outcome in await self._confirmed(messages)):
            await self._queues.declare_stream()  # it was deleted behind our back: make it again, once
            for outcome in await self._confirmed(messages):
                if outcome is not None:
                    raise outcome

    async def _confirmed(self, messages: Sequence[Message]) -> Sequence[Unroutable | None]:
        outcomes = []
        for outcome in await self.publish(messages):
            if isinstance(outcome, LinkDown):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def broadcast(
        self,
        method: str,
        arguments: Mapping[str, Any],
        *,
        destination: Sequence[str] | None = None,
        timeout: float = 1.0,
    ) -> Mapping[str, Any]:
        message, route, replies = question(method, arguments, destination, timeout)
        async with self._reading.question(timeout=timeout + _SETUP_SECONDS) as channel:
            try:
                await channel.exchange_declare(CONTROL_EXCHANGE, passive=True)
            except ChannelNotFoundEntity:
                return {}  # no worker has ever listened here
            if not timeout:
                await self._publisher.tell([message])
                return {}
            await channel.exchange_declare(REPLY_EXCHANGE, exchange_type="direct", durable=False)
            queue = (await channel.queue_declare("", exclusive=True, auto_delete=True)).queue or ""
            await channel.queue_bind(queue, REPLY_EXCHANGE, routing_key=route)

            async def take(delivered: DeliveredMessage) -> None:
                replies.take(delivered.header.properties.headers or {}, bytes(delivered.body))

            await channel.basic_consume(queue, take, no_ack=True)
            await self._publisher.tell([message])
            return await replies.collect(timeout)
