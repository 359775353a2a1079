"""The link to the embedded broker: its store, run in threads so that the event loop never waits for the file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import uuid4

from dure.broker.store import Message as StoredMessage
from dure.broker.store import Store
from dure.client.replies import Replies, question
from dure.errors import LinkDown, Unroutable
from dure.link import EventBatch, EventFeed
from dure.node import QueueDepth
from dure.url import file_path
from dure.wire import CONTROL_EXCHANGE, EVENT_EXCHANGE, REPLY_EXCHANGE, Message

Answer = TypeVar("Answer")

_LOOK_SECONDS = 1.0  # the store asks to be claimed from once a second, wake or no wake


class EmbeddedLink:
    """One store publishes and answers questions; each feed has its own."""

    def __init__(self, url: str, *, event_queue: str, event_limit: int) -> None:
        self.url = url
        self._path = file_path(url)
        self._event_queue = event_queue
        self._event_limit = event_limit
        self._calls: _StoreThread | None = None

    @property
    def connected(self) -> bool:
        return self._calls is not None

    async def open(self) -> None:
        if self._calls is None:
            self._calls = _StoreThread(Store(self._path))

    async def close(self) -> None:
        calls, self._calls = self._calls, None
        if calls is not None:
            await calls.close()

    async def ping(self) -> None:
        await self._call(lambda store: store.depth(self._event_queue))

    async def publish(self, messages: Sequence[Message]) -> Sequence[BaseException | None]:
        stored = [
            StoredMessage(m.exchange, m.routing_key, m.body, {**m.properties, "headers": m.headers}) for m in messages
        ]
        try:
            reached = await self._call(lambda store: store.publish(stored))
        except LinkDown as exc:
            return [exc] * len(messages)
        return [
            None if count or message.exchange == CONTROL_EXCHANGE else Unroutable(message.routing_key)
            for count, message in zip(reached, messages, strict=True)
        ]

    async def declare_queue(self, name: str, *, defined_by_application: bool = False) -> None:
        await self._call(lambda store: store.depth(name) or store.declare_queue(name))

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
        def bind(store: Store) -> str:
            store.declare_exchange(EVENT_EXCHANGE, "topic")
            name = self._event_queue if durable else f"{self._event_queue}.{uuid4().hex}"
            store.declare_queue(
                name, durable=durable, exclusive=not durable, arguments={"x-max-length": self._event_limit}
            )
            for pattern in patterns:
                store.bind(name, EVENT_EXCHANGE, pattern)
            store.consume(name)
            return name

        if self._calls is None:
            raise LinkDown(self.url, "the link is not open")
        thread = _StoreThread(Store(self._path))
        return EmbeddedFeed(thread, await thread.call(bind), acknowledges=durable)

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
            await self.publish([message])
            return {}
        return await self._ask(message, route, replies, timeout)

    async def _ask(self, message: Message, route: str, replies: Replies, timeout: float) -> Mapping[str, Any]:
        def listen(store: Store) -> None:
            store.declare_exchange(REPLY_EXCHANGE, "direct", durable=False)
            store.declare_queue(route, exclusive=True)
            store.bind(route, REPLY_EXCHANGE, route)
            store.consume(route)

        thread = _StoreThread(Store(self._path))
        try:
            await thread.call(listen)
            await self.publish([message])
            gathering = asyncio.create_task(_gather(EmbeddedFeed(thread, route, acknowledges=False), replies))
            try:
                return await replies.collect(timeout)
            finally:
                gathering.cancel()
                await asyncio.gather(gathering, return_exceptions=True)
        finally:
            await thread.close()

    async def _call(self, ask: Callable[[Store], Answer]) -> Answer:
        if self._calls is None:
            raise LinkDown(self.url, "the link is not open")
        return await self._calls.call(ask)


class EmbeddedFeed:
    """Claims from one queue; sleeps on the store's wake socket while it is empty."""

    def __init__(self, thread: _StoreThread, queue: str, *, acknowledges: bool) -> None:
        self._thread = thread
        self._queue = queue
        self._acknowledges = acknowledges
        self._given: list[int] = []
        self._wake = asyncio.Event()
        self._ear = thread.store.fileno()
        asyncio.get_running_loop().add_reader(self._ear, self._woken)

    async def deliveries(self, limit: int) -> Sequence[tuple[Mapping[str, Any], bytes]]:
        """Wait for the next messages, as headers and body."""
        while True:
            self._wake.clear()
            claimed = await self._thread.call(
                lambda store: store.claim([self._queue], limit, no_ack=not self._acknowledges)
            )
            if claimed:
                break
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue
        if self._acknowledges:
            self._given += [delivery.tag for delivery in claimed]
        return [(d.message.properties.get("headers") or {}, _bytes(d.message.body)) for d in claimed]

    async def batch(self, limit: int) -> EventBatch:
        return [body for _, body in await self.deliveries(limit)]

    async def ack(self) -> None:
        given, self._given = self._given, []
        if given:
            await self._thread.call(lambda store: store.ack(given))

    async def close(self) -> None:
        self.stop_listening()
        await self._thread.close()

    def stop_listening(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ear)

    def _woken(self) -> None:
        self._thread.store.drain_wakes()
        self._wake.set()


class _StoreThread:
    """One store and the thread that talks to its file."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="dure-store")

    async def call(self, ask: Callable[[Store], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._executor, ask, self.store)

    async def close(self) -> None:
        await self.call(Store.close)
        self._executor.shutdown(wait=False)


async def _gather(feed: EmbeddedFeed, replies: Replies) -> None:
    try:
        while True:
            for headers, body in await feed.deliveries(100):
                replies.take(headers, body)
    finally:
        feed.stop_listening()


def _bytes(body: bytes | str) -> bytes:
    return body.encode() if isinstance(body, str) else body
