"""Publishes a batch in one write, and waits for its confirmations together.

aiormq's own `basic_publish` takes the channel's lock, a place in the write queue and a task for each message: 75 to
95 µs of CPU a message, where a batch written at once takes about half. This is the same with the
frames of all messages joined; the confirmations are still aiormq's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import PublishError
from pamqp import commands as spec
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from dure.errors import Unroutable
from dure.wire import Message


async def publish_batch(
    channel: Channel, messages: Sequence[Message], *, mandatory: bool, timeout: float
) -> Sequence[BaseException | None]:
    """For each message None, Unroutable, or what kept the broker from confirming it within `timeout` seconds."""
    if not messages:
        return []
    confirmations = await _write(channel, messages, mandatory=mandatory)
    await asyncio.wait(confirmations, timeout=timeout)
    return [_outcome(future, message) for future, message in zip(confirmations, messages, strict=True)]


async def _write(channel: Channel, messages: Sequence[Message], *, mandatory: bool) -> list[asyncio.Future[object]]:
    confirmations: list[asyncio.Future[object]] = []
    frames: list[Frame | ContentHeader | ContentBody | Heartbeat] = []
    message_ids = []
    async with channel.lock:
        for message in messages:
            channel.delivery_tag += 1
            # aiormq finds a returned message by this id.
            message_id = f"{channel.delivery_tag:x}"
            future: asyncio.Future[object] = channel.create_future()
            channel.confirmations[channel.delivery_tag] = future
            channel.message_id_delivery_tag[message_id] = channel.delivery_tag
            confirmations.append(future)
            message_ids.append(message_id)
            properties = spec.Basic.Properties(message_id=message_id, headers=message.headers, **message.properties)
            frames += [
                spec.Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=mandatory),
                ContentHeader(properties=properties, body_size=len(message.body)),
                *channel._split_body(message.body),
            ]
        try:
            await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))
        except BaseException:
            # The broker counts what it has seen; with numbers used up that it has not, the channel is of no more use.
            await channel.close()
            raise
    for future, message_id in zip(confirmations, message_ids, strict=True):
        future.add_done_callback(partial(_forget, channel, message_id))
    return confirmations


def _forget(channel: Channel, message_id: str, _: asyncio.Future[object]) -> None:
    channel.message_id_delivery_tag.pop(message_id, None)


def _outcome(future: asyncio.Future[object], message: Message) -> BaseException | None:
    if not future.done():
        future.cancel()
        return TimeoutError("no confirmation in time")
    if future.cancelled():
        return ConnectionError("the channel was closed")
    exc = future.exception()
    return Unroutable(message.routing_key) if isinstance(exc, PublishError) else exc
