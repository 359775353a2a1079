"""Messages out of the embedded broker, and the threads that talk to its file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from dure import dead
from dure.broker.store import Delivery, Store
from dure.dead import DeadLetter
from dure.errors import LinkDown, LinkError
from dure.wire import EVENT_EXCHANGE

Answer = TypeVar("Answer")
Item = TypeVar("Item")

_LOOK_SECONDS = 1.0  # the store asks to be claimed from once a second, wake or no wake


class StoreThread:
    """One store and the thread that talks to its file."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="dure-store")
        self._closed = False

    async def call(self, ask: Callable[[Store], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._executor, ask, self.store)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self.call(Store.close)
            self._executor.shutdown(wait=False)


class EmbeddedFeed(Generic[Item]):
    """Claims from one queue, each message as what `read` makes of it; sleeps on the store's wake socket while it is
    empty."""

    def __init__(
        self, thread: StoreThread, queue: str, read: Callable[[Delivery], Item], *, acknowledges: bool
    ) -> None:
        self._thread = thread
        self._queue = queue
        self._read = read
        self._acknowledges = acknowledges
        self._given: list[int] = []
        self._wake = asyncio.Event()
        self._ear = thread.store.fileno()
        asyncio.get_running_loop().add_reader(self._ear, self._woken)

    async def batch(self, limit: int, within: float | None = None) -> Sequence[Item]:
        left = _LOOK_SECONDS if within is None else within
        while True:
            self._wake.clear()
            claimed = await self._thread.call(
                lambda store: store.claim([self._queue], limit, no_ack=not self._acknowledges)
            )
            if claimed:
                break
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                if within is not None:
                    return []
        if self._acknowledges:
            self._given += [delivery.tag for delivery in claimed]
        return [self._read(delivery) for delivery in claimed]

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


class EmbeddedWatchFeed(EmbeddedFeed[bytes]):
    """Claims from a queue of its own, whose bindings come and go."""

    def __init__(self, thread: StoreThread, queue: str) -> None:
        super().__init__(thread, queue, body, acknowledges=False)

    async def bind(self, keys: Collection[str]) -> None:
        await self._ask(lambda store: store.bind_all(self._queue, EVENT_EXCHANGE, keys))

    async def unbind(self, keys: Collection[str]) -> None:
        await self._ask(lambda store: store.unbind_all(self._queue, EVENT_EXCHANGE, keys))

    async def _ask(self, ask: Callable[[Store], None]) -> None:
        try:
            await self._thread.call(ask)
        except LinkDown:
            raise
        except LinkError as exc:  # there is no such queue any more: others took this process for dead
            raise LinkDown(f"dure://{self._thread.store.path}", str(exc)) from exc


def headers(delivery: Delivery) -> Mapping[str, Any]:
    found = delivery.message.properties.get("headers")
    return found if isinstance(found, Mapping) else {}


def body(delivery: Delivery) -> bytes:
    stored = delivery.message.body
    return stored.encode() if isinstance(stored, str) else stored


def letter(delivery: Delivery) -> DeadLetter:
    return dead.read(body(delivery), headers(delivery), delivery.message.routing_key)


def answer(delivery: Delivery) -> tuple[Mapping[str, Any], bytes]:
    return headers(delivery), body(delivery)
