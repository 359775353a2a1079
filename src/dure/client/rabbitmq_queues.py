"""Queues on RabbitMQ: what exists is used as it is, what is missing is declared as the settings say."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPChannelError,
    AMQPError,
    ChannelNotFoundEntity,
    ConnectionClosed,
)

from dure.client.rabbitmq_connection import RabbitConnection
from dure.errors import QueueRefused
from dure.node import QueueDepth
from dure.revocation import STREAM, STREAM_ARGUMENTS
from dure.settings import Settings
from dure.wire import EVENT_EXCHANGE

log = structlog.get_logger("dure")

_ASK_AGAIN_SECONDS = 60
_WATCH_BYTES = 64 * 1024 * 1024


class RabbitQueues:
    """Remembers what is there, until the connection is another."""

    def __init__(self, connection: RabbitConnection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._declared: set[str] = set()
        self._streams_refused: tuple[float, QueueRefused] | None = None

    def forget(self, name: str | None = None) -> None:
        """Look again whether this queue, or any, is there."""
        if name is None:
            self._declared.clear()
        else:
            self._declared.discard(name)

    async def depth(self, name: str) -> QueueDepth:
        async with self._connection.question() as channel:
            try:
                told = await channel.queue_declare(name, passive=True)
            except ChannelNotFoundEntity:
                return QueueDepth(name=name, exists=False)
            except AMQPError as exc:
                if channel.is_closed and self._connection.is_open:  # there, but exclusively another's
                    log.debug("queue cannot be looked at", queue=name, error=str(exc))
                    return QueueDepth(name=name)
                raise
        return QueueDepth(name=name, messages=told.message_count or 0, consumers=told.consumer_count or 0)

    async def declare(self, name: str, *, defined_by_application: bool) -> None:
        if name in self._declared:
            return
        if name == self._settings.dead_queue:
            await self.declare_dead()
        elif not (await self.depth(name)).exists:
            arguments = self._settings.new_queue_arguments(defined_by_application=defined_by_application)
            if "x-dead-letter-exchange" in arguments and not await self._dead_letters_kept():
                arguments = self._settings.new_queue_arguments(defined_by_application=True)
            await self._create(name, arguments)
        self._declared.add(name)

    async def _dead_letters_kept(self) -> bool:
        try:
            await self.declare_dead()
        except QueueRefused as exc:
            log.warning("a queue is made without dead letters", error=str(exc))
            return False
        return True

    async def declare_dead(self) -> None:
        """The exchange and the queue of dead letters; raises QueueRefused."""
        name = self._settings.dead_queue
        if name in self._declared:
            return
        found = await self._exchange_exists(name)
        if not found:
            async with self._connection.question() as channel:
                try:
                    await channel.exchange_declare(name, exchange_type="fanout", durable=True)
                except (AMQPChannelError, ValueError) as exc:
                    raise QueueRefused(name, str(exc)) from exc
        if not (await self.depth(name)).exists:
            found = False
            await self._create(name, self._settings.lasting_queue_arguments())
        async with self._connection.question() as channel:
            try:
                await channel.queue_bind(name, name)
            except AMQPChannelError as exc:
                if not found:  # else whoever made both, and lets us read, has bound them
                    raise QueueRefused(name, str(exc)) from exc
        self._declared.add(name)

    async def _exchange_exists(self, name: str) -> bool:
        async with self._connection.question() as channel:
            try:
                await channel.exchange_declare(name, passive=True)
            except ChannelNotFoundEntity:
                return False
        return True

    async def declare_stream(self) -> None:
        """The log of cancelled jobs; raises QueueRefused where the broker has no streams for us."""
        if STREAM in self._declared:
            return
        if not (await self.depth(STREAM)).exists:
            await self._create_stream()
        self._declared.add(STREAM)

    async def _create_stream(self) -> None:
        if self._streams_refused is not None:
            at, refusal = self._streams_refused
            if time.monotonic() < at + _ASK_AGAIN_SECONDS:
                raise refusal
        async with self._connection.apart() as channel:
            try:
                await channel.queue_declare(STREAM, durable=True, arguments=STREAM_ARGUMENTS)
            except (AMQPChannelError, ConnectionClosed) as exc:  # RabbitMQ closes the connection too
                refusal = QueueRefused(STREAM, str(exc))
                self._streams_refused = (time.monotonic(), refusal)
                raise refusal from exc

    async def bind_events(self, patterns: Sequence[str], *, durable: bool) -> str:
        """The queue for a feed of events: the recorder's, or one that goes with the connection."""
        name = self._settings.event_queue
        missing = durable and not (await self.depth(name)).exists
        async with self._connection.question() as channel:
            await channel.exchange_declare(EVENT_EXCHANGE, exchange_type="topic", durable=True)
            if not durable:
                name = (await channel.queue_declare("", exclusive=True, auto_delete=True)).queue or ""
            elif missing:
                await channel.queue_declare(name, durable=True, arguments=self._event_arguments())
            for pattern in patterns:
                await channel.queue_bind(name, EVENT_EXCHANGE, routing_key=pattern)
        return name

    async def watch_queue(self, channel: Channel, limit: int) -> str:
        """A queue that goes with this connection."""
        await channel.exchange_declare(EVENT_EXCHANGE, exchange_type="topic", durable=True)
        bound: dict[str, Any] = {"x-max-length": limit, "x-max-length-bytes": _WATCH_BYTES, "x-overflow": "drop-head"}
        return (await channel.queue_declare("", exclusive=True, auto_delete=True, arguments=bound)).queue or ""

    def _event_arguments(self) -> dict[str, Any]:
        """What the worker declares as well: whoever comes first creates the queue."""
        bound = {"x-max-length": self._settings.event_limit, "x-overflow": "drop-head"}
        return self._settings.lasting_queue_arguments() | bound

    async def _create(self, name: str, arguments: Mapping[str, Any]) -> None:
        async with self._connection.question() as channel:
            try:
                await channel.queue_declare(name, durable=True, arguments=dict(arguments))
            except (AMQPChannelError, ValueError) as exc:
                refusal = QueueRefused(name, str(exc))
            else:
                return
        if not (await self.depth(name)).exists:  # somebody may have made it, of another kind, at this very moment
            raise refusal


def _of_type(queue_type: str) -> dict[str, Any]:
    """Classic is what RabbitMQ makes where nothing is said, and Celery says nothing."""
    return {"x-queue-type": queue_type} if queue_type == "quorum" else {}
