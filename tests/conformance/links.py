"""Brokers for the conformance suite of links, and what is asked of them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kombu import Connection

import dure.broker  # noqa: F401 - teaches kombu dure://
from dure.client.connect import connect
from dure.dead import DeadLetter
from dure.link import Feed, Link
from dure.settings import Settings
from dure.wire import EVENT_EXCHANGE, Message
from tests.services import RabbitMQ

Item = TypeVar("Item")

PATIENCE = 20.0

CHECKOUT = Path(__file__).parents[2]


@dataclass
class Broker:
    """A broker of the test's own, and links to it."""

    kind: str
    url: str
    server: RabbitMQ | None
    links: list[Link] = field(default_factory=list)

    async def link(self, **settings: Any) -> Link:
        link = connect(Settings(_env_file=None, broker_url=self.url, **settings))
        self.links.append(link)
        async with asyncio.timeout(PATIENCE):
            await link.open()  # returns after two seconds where a broker is slower
            while not link.connected:
                await asyncio.sleep(0.02)
        return link

    def kombu(self) -> Connection:
        return Connection(self.url)


def message(queue: str, body: bytes = b"[[],{},null]") -> Message:
    return Message("", queue, body, {"h": 1}, {"content_type": "application/json", "content_encoding": "utf-8"})


def event(key: str, body: bytes) -> Message:
    return Message(EVENT_EXCHANGE, key, body, {}, {"content_type": "application/json", "content_encoding": "utf-8"})


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            if found := await condition():
                return found
            await asyncio.sleep(0.02)


async def depth(link: Link, name: str) -> tuple[int, int, bool]:
    (found,) = await link.queues([name])
    return found.messages, found.consumers, found.exists


async def read(feed: Feed[Item], count: int) -> list[Item]:
    items: list[Item] = []
    async with asyncio.timeout(PATIENCE):
        while len(items) < count:
            items += await feed.batch(500)
    return items


def job_message(queue: str, job_id: str, **properties: Any) -> Message:
    plain = message(queue)
    return Message("", queue, plain.body, {"id": job_id, "task": "t"}, plain.properties | properties)


def reject(broker: Broker, queue: str, *, requeue: bool = False) -> None:
    """What a consumer does that gives the queue's next message up, or back."""
    with broker.kombu() as connection, connection.channel() as channel:
        deadline = time.monotonic() + PATIENCE
        while (found := channel.basic_get(queue)) is None:
            assert time.monotonic() < deadline
        channel.basic_reject(found.delivery_tag, requeue=requeue)


async def letters(feed: Feed[DeadLetter], count: int) -> list[tuple[str | None, str, str | None]]:
    """Of each letter its job, reason and queue."""
    return [(letter.job_id, letter.reason, letter.queue) for letter in await read(feed, count)]
