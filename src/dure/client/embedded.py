"""The link to the embedded broker: its store, run in threads so that the event loop never waits for the file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from dure.broker.store import Message as StoredMessage
from dure.broker.store import Store
from dure.client.embedded_feed import EmbeddedFeed, EmbeddedWatchFeed, StoreThread, answer, body, letter
from dure.client.replies import Replies, question
from dure.client.revoking import orders, portions
from dure.dead import DeadLetter
from dure.errors import LinkDown, Unroutable
from dure.link import WATCH_LIMIT, EventFeed, WatchFeed
from dure.node import QueueDepth
from dure.settings import Settings
from dure.url import file_path
from dure.wire import CONTROL_EXCHANGE, EVENT_EXCHANGE, REPLY_EXCHANGE, Message, event_message

Answer = TypeVar("Answer")


class EmbeddedLink:
    """One store publishes and answers questions; each feed has its own."""

    def __init__(self, settings: Settings) -> None:
        self.url = settings.broker
        self._path = file_path(settings.broker)
        self._settings = settings
        self._calls: StoreThread | None = None
        self._declared: set[str] = set()

    @property
    def connected(self) -> bool:
        return self._calls is not None

    async def open(self) -> None:
        if self._calls is None:
            self._calls = StoreThread(Store(self._path))

    async def close(self) -> None:
        calls, self._calls = self._calls, None
        self._declared.clear()
        if calls is not None:
            await calls.close()

    async def ping(self) -> None:
        await self._call(lambda store: store.depth(self._settings.event_queue))

    async def publish(self, messages: Sequence[Message]) -> Sequence[LinkDown | Unroutable | None]:
        stored = [_stored(message) for message in messages]
        try:
            reached = await self._call(lambda store: store.publish(stored))
        except LinkDown as exc:
            return [exc] * len(messages)
        return [
            None if count or message.exchange == CONTROL_EXCHANGE else self._unroutable(message.routing_key)
            for count, message in zip(reached, messages, strict=True)
        ]

    def _unroutable(self, queue: str) -> Unroutable:
        self._declared.discard(queue)
        return Unroutable(queue)

    async def declare_queue(self, name: str, *, defined_by_application: bool = False) -> None:
        """Whoever defines it, and even if it exists: its dead letters are kept, for here nobody is refused for that."""
        if name not in self._declared:
            await self._call(lambda store: self._declare(store, name))
            self._declared.add(name)

    def _declare(self, store: Store, name: str) -> None:
        self._declare_dead(store)
        if name != self._settings.dead_queue:
            arguments = {
                "x-dead-letter-exchange": self._settings.dead_queue,
                "x-delivery-limit": self._settings.delivery_limit,
            }
            store.declare_queue(name, arguments=arguments)

    def _declare_dead(self, store: Store) -> None:
        name = self._settings.dead_queue
        store.declare_exchange(name, "fanout")
        store.declare_queue(name)
        store.bind(name, name)

    async def holds(self, queue: str, ids: Sequence[str]) -> frozenset[str] | None:
        return frozenset(await self._call(lambda store: store.holds(queue, ids)))

    async def queues(self, names: Iterable[str]) -> Sequence[QueueDepth]:
        wanted = list(names)
        depths = await self._call(lambda store: [store.depth(name) for name in wanted])
        return [
            QueueDepth(name=name, exists=False)
            if depth is None
            else QueueDepth(name=name, messages=depth.messages, consumers=depth.consumers)
            for name, depth in zip(wanted, depths, strict=True)
        ]

    async def events(self, patterns: Sequence[str], *, durable: bool) -> EventFeed:
        limit = self._settings.event_limit
        thread, name = await self._beside(lambda store: self._listen(store, patterns, limit, durable=durable))
        return EmbeddedFeed(thread, name, body, acknowledges=durable)

    async def watch(self, *, limit: int = WATCH_LIMIT) -> WatchFeed:
        thread, name = await self._beside(lambda store: self._listen(store, (), limit, durable=False))
        return EmbeddedWatchFeed(thread, name)

    def _listen(self, store: Store, patterns: Sequence[str], limit: int, *, durable: bool) -> str:
        store.declare_exchange(EVENT_EXCHANGE, "topic")
        name = self._settings.event_queue if durable else f"{self._settings.event_queue}.{uuid4().hex}"
        store.declare_queue(name, durable=durable, exclusive=not durable, arguments={"x-max-length": limit})
        store.bind_all(name, EVENT_EXCHANGE, patterns)
        store.consume(name)
        return name

    async def tell(self, body: bytes, routing_key: str, cc: Sequence[str] = ()) -> None:
        message = _stored(event_message(body, routing_key, cc))
        await self._call(lambda store: store.publish([message]))

    async def dead_letters(self) -> EmbeddedFeed[DeadLetter]:
        def declare(store: Store) -> str:
            self._declare_dead(store)
            store.consume(self._settings.dead_queue)
            return self._settings.dead_queue

        thread, name = await self._beside(declare)
        return EmbeddedFeed(thread, name, letter, acknowledges=True)

    async def revoke(self, ids: Sequence[str], *, terminate: bool) -> None:
        revoked = portions(ids, terminate=terminate, at=time.time())
        await self._call(lambda store: store.revoke(ids, terminate=terminate))
        for order in orders(revoked):
            await self.broadcast("revoke", order, timeout=0)

    async def broadcast(
        self,
        method: str,
        arguments: Mapping[str, Any],
        *,
        destination: Sequence[str] | None = None,
        timeout: float = 1.0,
    ) -> Mapping[str, Any]:
        message, route, replies = question(method, arguments, destination, timeout)
        if not await self._call(lambda store: store.exchange_exists(CONTROL_EXCHANGE)):
            return {}
        if not timeout:
            await self._tell(message)
            return {}
        return await self._ask(message, route, replies, timeout)

    async def _ask(self, message: Message, route: str, replies: Replies, timeout: float) -> Mapping[str, Any]:
        def listen(store: Store) -> None:
            store.declare_exchange(REPLY_EXCHANGE, "direct", durable=False)
            store.declare_queue(route, exclusive=True)
            store.bind(route, REPLY_EXCHANGE, route)
            store.consume(route)

        thread, _ = await self._beside(listen)
        try:
            await self._tell(message)
            gathering = asyncio.create_task(_gather(EmbeddedFeed(thread, route, answer, acknowledges=False), replies))
            try:
                return await replies.collect(timeout)
            finally:
                gathering.cancel()
                await asyncio.gather(gathering, return_exceptions=True)
        finally:
            await thread.close()

    async def _tell(self, message: Message) -> None:
        for outcome in await self.publish([message]):
            if outcome is not None:
                raise outcome

    async def _call(self, ask: Callable[[Store], Answer]) -> Answer:
        if self._calls is None:
            raise LinkDown(self.url, "the link is not open")
        return await self._calls.call(ask)

    async def _beside(self, prepare: Callable[[Store], Answer]) -> tuple[StoreThread, Answer]:
        """A store and thread of a reader's own, and what it was prepared with."""
        if self._calls is None:
            raise LinkDown(self.url, "the link is not open")
        thread = StoreThread(Store(self._path))
        try:
            return thread, await thread.call(prepare)
        except BaseException:
            await thread.close()
            raise


def _stored(message: Message) -> StoredMessage:
    properties = {**message.properties, "headers": message.headers}
    return StoredMessage(message.exchange, message.routing_key, message.body, properties)


async def _gather(feed: EmbeddedFeed[tuple[Mapping[str, Any], bytes]], replies: Replies) -> None:
    try:
        while True:
            for headers, content in await feed.batch(100):
                replies.take(headers, content)
    finally:
        feed.stop_listening()
