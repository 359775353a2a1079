"""The link to RabbitMQ, on aiormq.

One connection; one channel publishes, each feed has its own. A lost connection is opened again with a growing pause;
until then every call raises LinkDown at once, so nobody waits for a broker that is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from urllib.parse import urlsplit

import aiormq
import structlog
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import AMQPChannelError, AMQPError, ChannelNotFoundEntity
from tenacity import AsyncRetrying, RetryCallState, wait_random_exponential

from dure.client.rabbitmq_feed import RabbitFeed
from dure.client.rabbitmq_publish import publish_batch
from dure.client.replies import question
from dure.errors import LinkDown, QueueRefused, Unroutable
from dure.link import EventFeed
from dure.node import QueueDepth
from dure.settings import Settings
from dure.url import redact
from dure.wire import CONTROL_EXCHANGE, EVENT_EXCHANGE, REPLY_EXCHANGE, Message

log = structlog.get_logger("dure")

_CONNECT_SECONDS = 10
_FIRST_TRY_SECONDS = 2  # a broker that does not even refuse keeps nobody from starting
_CONFIRM_SECONDS = 15
_HEARTBEAT_SECONDS = 10
_LOST = (AMQPError, OSError, asyncio.TimeoutError, RuntimeError)


class RabbitLink:
    """`settings` say where the broker is, what the recorder's queue is called and of which type new queues are."""

    def __init__(self, settings: Settings) -> None:
        self.url = redact(settings.broker)
        self._settings = settings
        self._connection: AbstractConnection | None = None
        self._publishing: Channel | None = None
        self._declared: set[str] = set()
        self._detail = "not connected yet"
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._publishing is not None and not self._publishing.is_closed

    async def open(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep_connected(), name="dure-rabbitmq")
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_TRY_SECONDS):
                await self._tried.wait()

    async def close(self) -> None:
        task, self._task = self._task, None
        self._tried.clear()
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._disconnect()

    async def ping(self) -> None:
        async with self._channel():
            pass

    async def publish(self, messages: Sequence[Message]) -> Sequence[BaseException | None]:
        channel = self._publishing
        if channel is None or channel.is_closed:
            return [self._down()] * len(messages)
        try:
            outcomes = await publish_batch(channel, messages, mandatory=True, timeout=_CONFIRM_SECONDS)
        except _LOST as exc:
            return [self._down(exc)] * len(messages)
        return [self._told(outcome) for outcome in outcomes]

    def _told(self, outcome: BaseException | None) -> BaseException | None:
        if isinstance(outcome, Unroutable):
            self._declared.discard(outcome.queue)
            return outcome
        return None if outcome is None else self._down(outcome)

    async def declare_queue(self, name: str, *, defined_by_application: bool = False) -> None:
        if name in self._declared:
            return
        if not (await self._depth(name)).exists:
            arguments = _of_type(self._settings.new_queue_type(defined_by_application=defined_by_application))
            async with self._channel() as channel:
                try:
                    await channel.queue_declare(name, durable=True, arguments=arguments)
                except (AMQPChannelError, ValueError) as exc:
                    raise QueueRefused(name, str(exc)) from exc
        self._declared.add(name)

    async def queues(self, names: Iterable[str]) -> Sequence[QueueDepth]:
        return [await self._depth(name) for name in names]

    async def _depth(self, name: str) -> QueueDepth:
        async with self._channel() as channel:
            try:
                told = await channel.queue_declare(name, passive=True)
            except ChannelNotFoundEntity:
                return QueueDepth(name=name, exists=False)
            except AMQPError as exc:
                if channel.is_closed and self.connected:  # there, but exclusively another's
                    log.debug("queue cannot be looked at", queue=name, error=str(exc))
                    return QueueDepth(name=name)
                raise
        return QueueDepth(name=name, messages=told.message_count or 0, consumers=told.consumer_count or 0)

    async def events(self, patterns: Sequence[str], *, durable: bool) -> EventFeed:
        channel = await self._open_channel()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await self._feed(channel, patterns, durable=durable)
        except _LOST as exc:
            await _close(channel)
            raise self._down(exc) from exc

    async def _feed(self, channel: AbstractChannel, patterns: Sequence[str], *, durable: bool) -> RabbitFeed:
        await channel.exchange_declare(EVENT_EXCHANGE, exchange_type="topic", durable=True)
        name = await self._event_queue(channel) if durable else await _queue_of_its_own(channel)
        for pattern in patterns:
            await channel.queue_bind(name, EVENT_EXCHANGE, routing_key=pattern)
        feed = RabbitFeed(channel, self._down, acknowledges=durable)
        await feed.start(name)
        return feed

    async def _event_queue(self, channel: AbstractChannel) -> str:
        """The recorder's queue, which is used as it is where it exists: it may be of another time's settings."""
        name = self._settings.event_queue
        if not (await self._depth(name)).exists:
            await channel.queue_declare(name, durable=True, arguments=self._event_arguments())
        return name

    def _event_arguments(self) -> dict[str, Any]:
        """What the worker declares as well: whoever comes first creates the queue."""
        bound = {"x-max-length": self._settings.event_limit, "x-overflow": "drop-head"}
        return _of_type(self._settings.queue_type) | bound

    async def broadcast(
        self,
        method: str,
        arguments: Mapping[str, Any],
        *,
        destination: Sequence[str] | None = None,
        timeout: float = 1.0,
    ) -> Mapping[str, Any]:
        message, route, replies = question(method, arguments, destination, timeout)
        async with self._channel() as channel:
            try:
                await channel.exchange_declare(CONTROL_EXCHANGE, passive=True)
            except ChannelNotFoundEntity:
                return {}  # no worker has ever listened here
            if not timeout:
                await publish_batch(channel, [message], mandatory=False, timeout=_CONFIRM_SECONDS)
                return {}
            await channel.exchange_declare(REPLY_EXCHANGE, exchange_type="direct", durable=False)
            queue = (await channel.queue_declare("", exclusive=True, auto_delete=True)).queue or ""
            await channel.queue_bind(queue, REPLY_EXCHANGE, routing_key=route)

            async def take(delivered: Any) -> None:
                replies.take(delivered.header.properties.headers or {}, bytes(delivered.body))

            await channel.basic_consume(queue, take, no_ack=True)
            await publish_batch(channel, [message], mandatory=False, timeout=_CONFIRM_SECONDS)
            return await replies.collect(timeout)

    async def _keep_connected(self) -> None:
        async for attempt in AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.2, max=3), before_sleep=self._lost
        ):
            with attempt:
                await self._connect()
                attempt.retry_state.attempt_number = 1
                if self._connection is not None:
                    await self._connection.closing
                raise ConnectionError("the connection was closed")

    async def _connect(self) -> None:
        await self._disconnect()
        async with asyncio.timeout(_CONNECT_SECONDS):
            connection = await aiormq.connect(_with_heartbeat(self._settings.broker))
            self._connection = connection
            self._declared.clear()
            self._publishing = cast(Channel, await connection.channel(on_return_raises=True))
        log.info("connected to the broker", broker=self.url)
        self._tried.set()

    def _lost(self, state: RetryCallState) -> None:
        exc = state.outcome.exception() if state.outcome else None
        self._detail = str(exc) or type(exc).__name__
        self._publishing = None
        self._tried.set()
        log.warning("the broker is away", broker=self.url, error=self._detail)

    async def _disconnect(self) -> None:
        connection, self._connection, self._publishing = self._connection, None, None
        if connection is not None:
            with suppress(*_LOST):
                async with asyncio.timeout(2):
                    await connection.close()

    async def _open_channel(self) -> AbstractChannel:
        connection = self._connection
        if connection is None or not self.connected:
            raise self._down()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await connection.channel()
        except _LOST as exc:
            raise self._down(exc) from exc

    @asynccontextmanager
    async def _channel(self) -> Any:
        """A channel for one question: a broker's «no» closes it."""
        channel = await self._open_channel()
        try:
            yield channel
        except _LOST as exc:
            raise self._down(exc) from exc
        finally:
            await _close(channel)

    def _down(self, exc: BaseException | None = None) -> LinkDown:
        return LinkDown(self.url, (str(exc) or type(exc).__name__) if exc is not None else self._detail)


async def _queue_of_its_own(channel: AbstractChannel) -> str:
    return (await channel.queue_declare("", exclusive=True, auto_delete=True)).queue or ""


def _of_type(queue_type: str) -> dict[str, Any]:
    """Classic is what RabbitMQ makes where nothing is said, and Celery says nothing."""
    return {"x-queue-type": queue_type} if queue_type == "quorum" else {}


def _with_heartbeat(url: str) -> str:
    """aiormq gives a silent peer up after three heartbeats; its default of 60 s is long for those who wait."""
    query = urlsplit(url).query
    if "heartbeat=" in query:
        return url
    return f"{url}{'&' if query else '?'}heartbeat={_HEARTBEAT_SECONDS}"


async def _close(channel: AbstractChannel) -> None:
    if not channel.is_closed:
        with suppress(*_LOST):
            async with asyncio.timeout(2):
                await channel.close()
