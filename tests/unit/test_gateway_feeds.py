"""How a feed is written to one reader: in whole batches, bounded, alive, and never without end."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dure.feed import FeedEvent, FeedKind
from dure.gateway import sse
from dure.gateway.feeds import CUT, OpenFeeds
from dure.gateway.sse import FeedResponse
from dure.settings import Settings


class Script:
    """A feed of the given batches; then it is over, or waits for ever."""

    def __init__(self, *batches: list[FeedEvent], over: bool = True) -> None:
        self._batches = list(batches)
        self._over = over
        self.closed = False

    async def batch(self) -> list[FeedEvent]:
        if self._batches:
            return self._batches.pop(0)
        if not self._over:
            await asyncio.Event().wait()
        return []

    async def close(self) -> None:
        self.closed = True


class Reader:
    """The other end, as the server in front shows it. It takes `room` messages, and then no more."""

    def __init__(self, room: int | None = None) -> None:
        self.messages: list[dict[str, Any]] = []
        self.went = asyncio.Event()
        self.took = asyncio.Condition()
        self.is_cut = False
        self._room = room
        self.scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": [], "extensions": {CUT: self._cut}}

    async def send(self, message: Any) -> None:
        if self._room is not None and len(self.messages) >= self._room:
            await self.went.wait()
        async with self.took:
            self.messages.append(message)
            self.took.notify_all()

    async def receive(self) -> dict[str, Any]:
        await self.went.wait()
        return {"type": "http.disconnect"}

    async def has(self, said: Callable[[bytes], bool]) -> None:
        async with asyncio.timeout(20), self.took:
            await self.took.wait_for(lambda: said(b"".join(self.bodies)))

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.messages if message["type"] == "http.response.body"]

    @property
    def ended(self) -> bool:
        return self.messages[-1].get("more_body", False) is False

    def _cut(self) -> None:
        self.is_cut = True
        self.went.set()


def output(n: int, chunk: Any) -> FeedEvent:
    return FeedEvent(id=f"8.1.{n}", kind=FeedKind.OUTPUT, at=1.0, data={"chunk": chunk, "job": "j", "at": 1.0}, job="j")


@pytest.fixture
def answered(tmp_path: Path) -> Callable[..., Awaitable[None]]:
    async def run(feed: Script, reader: Reader, open_feeds: OpenFeeds | None = None, **settings: Any) -> None:
        until = settings.pop("until", None)
        given = Settings(_env_file=None, home=tmp_path, **settings)
        response = FeedResponse(feed, open_feeds or OpenFeeds(), given, until=until)
        async with asyncio.timeout(20):
            await response(reader.scope, reader.receive, reader.send)

    return run


Answered = Callable[..., Awaitable[None]]


async def test_the_events_of_a_batch_leave_in_one_write(answered: Answered) -> None:
    reader, feed = Reader(), Script([output(n, n) for n in range(50)], [output(50, "é\n\u2028")])
    await answered(feed, reader)
    _, batch, last, end = reader.bodies
    assert batch.count(b"\n\n") == 50
    assert batch.startswith(b'event: output\ndata: {"chunk":0,"job":"j","at":1.0}\nid: 8.1.0\n\n')
    assert last.decode().split("\n")[1].startswith('data: {"chunk":"é\\n\u2028"')
    assert end == b""
    assert reader.ended
    assert feed.closed


async def test_a_batch_larger_than_the_buffer_is_written_in_parts(answered: Answered) -> None:
    reader = Reader()
    await answered(Script([output(n, "x" * 30_000) for n in range(10)]), reader, feed_buffer=65_536)
    assert max(map(len, reader.bodies)) <= 65_536
    assert b"".join(reader.bodies).count(b"event: output") == 10


async def test_a_reader_that_takes_nothing_is_cut_off_and_the_feed_closed(answered: Answered) -> None:
    reader, feed = Reader(room=2), Script([output(1, 1)], over=False)
    await answered(feed, reader, feed_timeout=0.01)
    assert reader.is_cut
    assert feed.closed
    assert not reader.ended


async def test_a_quiet_feed_is_kept_alive(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_ALIVE_SECONDS", 0.01)
    reader, feed = Reader(), Script(over=False)
    running = asyncio.ensure_future(answered(feed, reader))
    await reader.has(lambda said: said.count(b": ping\n\n") >= 3)
    reader.went.set()
    await running
    assert feed.closed


async def test_a_gateway_that_leaves_ends_a_quiet_feed_in_good_order(answered: Answered) -> None:
    reader, feed, feeds = Reader(), Script([output(1, 1)], over=False), OpenFeeds()
    running = asyncio.ensure_future(answered(feed, reader, feeds))
    await reader.has(lambda said: b"event: output" in said)
    feeds.close()
    await running
    assert reader.ended
    assert not reader.is_cut
    assert feed.closed


async def test_a_gateway_that_leaves_does_not_wait_for_a_reader_that_takes_nothing(answered: Answered) -> None:
    reader, feeds = Reader(room=2), OpenFeeds()
    running = asyncio.ensure_future(answered(Script([output(1, 1)], over=False), reader, feeds, feed_timeout=3600))
    await reader.has(bool)
    feeds.close()
    await running
    assert reader.is_cut


async def test_a_feed_ends_at_the_time_that_it_may_be_read_until(answered: Answered) -> None:
    reader = Reader()
    await answered(Script([output(1, 1)], over=False), reader, until=0.0)
    assert reader.ended
    assert b"event: output" not in b"".join(reader.bodies)
