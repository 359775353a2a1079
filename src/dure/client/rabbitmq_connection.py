"""One connection to RabbitMQ that mends itself.

A lost connection is opened again with a growing pause; until then every call raises LinkDown at once, so nobody waits
for a broker that is away.

A broker that is short of memory or disk stops reading from a connection when that one next publishes, and tells it so
(rabbitmq.com/docs/connection-blocked). What it asks and acknowledges then waits in the same line. So whoever publishes
has a connection of its own.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, cast
from urllib.parse import urlsplit

import structlog
from aiormq import AMQPError, Channel, Connection, TransportFactory
from aiormq.connection import TCPTransportFactory, TLSTransportFactory
from tenacity import AsyncRetrying, RetryCallState, wait_random_exponential
from yarl import URL

from dure.errors import LinkDown
from dure.url import redact

log = structlog.get_logger("dure")

LOST = (AMQPError, OSError, TimeoutError, RuntimeError)

_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 10
_FIRST_TRY_SECONDS = 2  # a broker that does not even refuse keeps nobody from starting
_CLOSE_SECONDS = 2
_HEARTBEAT_SECONDS = 10
_LOOK_SECONDS = 1.0


class RabbitConnection:
    """`purpose` is shown in the broker's list of connections; `opened` is called each time that one is open."""

    def __init__(self, url: str, purpose: str, opened: Callable[[], None] = lambda: None) -> None:
        self.url = redact(url)
        self._target = _with_heartbeat(url)
        self._purpose = purpose
        self._opened = opened
        self._connection: Connection | None = None
        self._transport: _Transport | None = None
        self._detail = "not connected yet"
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self._connection is not None and self._connection.is_opened

    @property
    def blocked(self) -> bool:
        """Whether the broker has told that it takes no messages now."""
        return self._connection is not None and self._connection.is_opened and not _is_ready(self._connection)

    async def open(self) -> None:
        """Begin to connect; returns with the first try, whatever came of it."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_connected(), name=f"dure-rabbitmq-{self._purpose}")
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

    async def channel(self, *, confirms: bool = False) -> Channel:
        connection = self._connection
        if connection is None or not connection.is_opened:
            raise self.down()
        with self.speaking():
            async with asyncio.timeout(_ANSWER_SECONDS):
                return cast(Channel, await connection.channel(publisher_confirms=confirms))

    def owns(self, channel: Channel) -> bool:
        """Whether the channel can still be used."""
        return channel.connection is self._connection and not channel.is_closed

    @asynccontextmanager
    async def question(self, *, confirms: bool = False, timeout: float = _ANSWER_SECONDS) -> AsyncIterator[Channel]:
        """A channel for one question: a broker's «no» closes it."""
        channel = await self.channel(confirms=confirms)
        try:
            with self.speaking():
                async with asyncio.timeout(timeout):
                    yield channel
        finally:
            await close_channel(channel)

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[Channel]:
        """A channel on a connection for this one question, which some brokers answer by closing the connection."""
        if not self.is_open:
            raise self.down()
        connection, transport = self._make()
        try:
            with self.speaking():
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await connection.connect()
                    yield cast(Channel, await connection.channel(publisher_confirms=False))
        finally:
            await _hang_up(connection, transport)

    async def room(self) -> None:
        """Wait until nearly all that was written is on its way."""
        connection, transport = self._connection, self._transport
        if connection is None or transport is None or transport.writer is None:
            return
        if connection.write_queue.empty() and not transport.writer.transport.get_write_buffer_size():
            return
        await connection.write_queue.join()  # aiormq has handed it to the socket
        await transport.writer.drain()

    def down(self, exc: BaseException | None = None) -> LinkDown:
        if self.blocked:
            return LinkDown(self.url, "it blocks its publishers, being short of memory or disk")
        if exc is None:
            return LinkDown(self.url, self._detail)
        silent = "it did not answer in time" if isinstance(exc, TimeoutError) else type(exc).__name__
        return LinkDown(self.url, str(exc) or silent)

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """What a lost connection raises inside is LinkDown."""
        try:
            with _named_cancellation():
                yield
        except LOST as exc:
            raise self.down(exc) from exc

    async def _keep_connected(self) -> None:
        async for attempt in AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.2, max=3), before_sleep=self._lost
        ):
            with attempt:
                connection = await self._connect()
                attempt.retry_state.attempt_number = 1
                await self._lives(connection)

    async def _connect(self) -> Connection:
        await self._disconnect()
        connection, transport = self._make()
        try:
            with _named_cancellation():
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await connection.connect()
        except BaseException:
            transport.abort()
            raise
        self._connection, self._transport = connection, transport
        self._opened()
        log.info("connected to the broker", broker=self.url, purpose=self._purpose)
        self._tried.set()
        return connection

    def _make(self) -> tuple[Connection, _Transport]:
        transport = _Transport(secure=urlsplit(self._target).scheme == "amqps")
        named = {"connection_name": f"dure {self._purpose}"} if URL(self._target).query.get("name") is None else {}
        return Connection(self._target, transport_factory=transport, client_properties=dict(named)), transport

    async def _lives(self, connection: Connection) -> None:
        """Returns never: raises when the connection is lost."""
        blocked = False
        closing = connection.closing
        while not closing.done():
            await asyncio.wait({closing}, timeout=_LOOK_SECONDS)
            if self.blocked != blocked:
                blocked = not blocked
                told = "the broker blocks its publishers" if blocked else "the broker takes messages again"
                log.warning(told, broker=self.url)
        # Looked at and not raised, for aiormq also closes with a CancelledError, and nobody has cancelled this.
        exc = None if closing.cancelled() else closing.exception()
        silent = exc is None or isinstance(exc, asyncio.CancelledError)
        raise ConnectionError("the connection was lost" if silent else str(exc) or type(exc).__name__)

    def _lost(self, state: RetryCallState) -> None:
        exc = state.outcome.exception() if state.outcome else None
        self._detail = str(exc) or type(exc).__name__
        self._tried.set()
        log.warning("the broker is away", broker=self.url, purpose=self._purpose, error=self._detail)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        transport, self._transport = self._transport, None
        if connection is not None and transport is not None:
            await _hang_up(connection, transport)


class _Transport(TransportFactory):
    """Keeps the writer at hand: aiormq waits for no room before it writes, and for long before it cuts a connection."""

    def __init__(self, *, secure: bool) -> None:
        self.writer: StreamWriter | None = None
        self._factory: TransportFactory = TLSTransportFactory() if secure else TCPTransportFactory()

    async def create(self, url: URL, **kwargs: Any) -> tuple[StreamReader, StreamWriter]:
        reader, self.writer = await self._factory.create(url, **kwargs)
        return reader, self.writer

    def abort(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()


async def close_channel(channel: Channel) -> None:
    if not channel.is_closed:
        with suppress(*LOST), _named_cancellation():
            async with asyncio.timeout(_CLOSE_SECONDS):
                await channel.close()


async def _hang_up(connection: Connection, transport: _Transport) -> None:
    try:
        with suppress(*LOST), _named_cancellation():
            async with asyncio.timeout(_CLOSE_SECONDS):
                await connection.close()
    finally:
        transport.abort()


@contextmanager
def _named_cancellation() -> Iterator[None]:
    """aiormq raises CancelledError in those who wait on a connection that it gives up; they were not cancelled."""
    try:
        yield
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionError("the connection was lost") from exc


def _is_ready(connection: Connection) -> bool:
    """aiormq keeps to itself whether the broker blocks the connection; its `ready()` waits while it does."""
    asking = connection.ready()
    try:
        asking.send(None)
    except StopIteration:
        return True
    finally:
        asking.close()
    return False


def _with_heartbeat(url: str) -> str:
    """aiormq gives a silent peer up after three heartbeats; its default of 60 s is long for those who wait."""
    query = urlsplit(url).query
    if "heartbeat=" in query:
        return url
    return f"{url}{'&' if query else '?'}heartbeat={_HEARTBEAT_SECONDS}"
