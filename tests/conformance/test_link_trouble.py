"""A RabbitMQ that takes no messages, and one that hangs: troubles of a whole server, so it is one of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from dure.client.rabbitmq import RabbitLink
from dure.errors import LinkDown, Unroutable
from dure.settings import Settings
from tests.conformance.links import PATIENCE, depth, event, message, read, until
from tests.services import RabbitMQ

MEBIBYTE = b"x" * 2**20


@pytest.fixture(scope="module")
def server(rabbitmq: RabbitMQ) -> Iterator[RabbitMQ]:
    """`rabbitmq` is asked for so that a machine without it is told so, or passed by."""
    with RabbitMQ() as server:
        yield server


Opened = Callable[..., Awaitable[RabbitLink]]


@pytest.fixture
async def opened(server: RabbitMQ) -> AsyncIterator[Opened]:
    """Opens links to one vhost."""
    url = server.vhost()
    links: list[RabbitLink] = []

    async def open_one(query: str = "", **options: Any) -> RabbitLink:
        link = RabbitLink(Settings(_env_file=None, broker_url=url + query), **options)
        links.append(link)
        await link.open()
        await until(lambda: _is(link.connected))  # opening waits no longer than two seconds
        return link

    yield open_one
    for link in links:
        await link.close()


async def _is(condition: bool) -> bool:
    return condition


async def test_a_broker_short_of_memory_is_not_connected_and_events_are_read_on(
    server: RabbitMQ, opened: Opened
) -> None:
    link = await opened()
    await link.declare_queue("q")
    feed = await link.events(["task.#"], durable=True)
    assert list(await link.publish([event("task.started", b"%d" % n) for n in range(3)])) == [None] * 3
    await asyncio.to_thread(server.alarm, True)
    try:
        # The broker blocks whom it finds publishing; that batch is on its way, and confirmed when it can be.
        on_its_way = asyncio.create_task(link.publish([message("q", b"first")]))
        began = time.monotonic()
        await until(lambda: _is(not link.connected))
        assert time.monotonic() - began < 10
        began = time.monotonic()
        for _ in range(100):
            (refused,) = set(await link.publish([message("q", MEBIBYTE)]))
            assert isinstance(refused, LinkDown)
            assert "blocks its publishers" in str(refused)
        assert time.monotonic() - began < 5
        with pytest.raises(LinkDown):
            await link.revoke(["a"], terminate=False)
        await link.ping()
        await link.declare_queue("another")
        assert sorted(await read(feed, 3)) == [b"0", b"1", b"2"]
        await feed.ack()
        await feed.close()
    finally:
        await asyncio.to_thread(server.alarm, False)
    began = time.monotonic()
    await until(lambda: _is(link.connected))
    assert time.monotonic() - began < 8
    assert list(await on_its_way) == [None]
    assert list(await link.publish([message("q", b"second"), event("task.started", b"3")])) == [None, None]
    feed = await link.events(["task.#"], durable=True)
    assert await read(feed, 1) == [b"3"]  # the others were acknowledged while the alarm was on
    await feed.close()
    assert (await depth(link, "q"))[0] == 2


async def test_what_is_confirmed_late_is_told_as_down_and_leaves_nothing_behind(
    server: RabbitMQ, opened: Opened
) -> None:
    link = await opened(confirm_timeout=3)
    await link.declare_queue("q")
    assert list(await link.publish([message("q")])) == [None]
    channel = link._publisher._channel
    assert channel is not None
    await asyncio.to_thread(server.alarm, True)
    try:
        batches = [[message("q", MEBIBYTE), message("nowhere", MEBIBYTE)] * 5 for _ in range(10)]
        began = time.monotonic()
        outcomes = await asyncio.gather(*(link.publish(batch) for batch in batches))
        assert time.monotonic() - began < 10
        assert {type(outcome) for batch in outcomes for outcome in batch} == {LinkDown}
        transport = link._publishing._transport
        assert transport is not None
        assert transport.writer is not None
        buffered = transport.writer.transport.get_write_buffer_size()
        assert buffered < 25 * 2**20, "a batch or two wait in memory, not all that were wanted"
    finally:
        await asyncio.to_thread(server.alarm, False)
    await until(lambda: _is(link.connected))

    async def nothing_kept() -> bool:
        return not channel.confirmations and not channel.message_id_delivery_tag

    await until(nothing_kept)
    assert link._publisher._channel is channel
    assert not channel.is_closed
    outcomes = [await link.publish([message("q"), message("nowhere")])]
    assert [type(outcome) for outcome in outcomes[0]] == [type(None), Unroutable]


async def test_a_broker_that_hangs_is_given_up_in_time_and_found_again(server: RabbitMQ, opened: Opened) -> None:
    link = await opened("?heartbeat=1", confirm_timeout=4)
    await link.declare_queue("q")
    feed = await link.events(["task.#"], durable=True)
    reading = asyncio.create_task(feed.batch(1))
    server.freeze()
    asking = asyncio.create_task(link.queues(["q"]))
    try:
        began = time.monotonic()
        outcomes = await asyncio.gather(*(link.publish([message("q", MEBIBYTE)] * 8) for _ in range(8)))
        assert {type(outcome) for batch in outcomes for outcome in batch} == {LinkDown}
        assert time.monotonic() - began < 10
        async with asyncio.timeout(PATIENCE):
            await until(lambda: _is(not link.connected))
            with pytest.raises(LinkDown):
                await reading
            with pytest.raises(LinkDown):
                await asking
        for ask in (link.ping, lambda: link.declare_queue("new"), lambda: link.events(["#"], durable=True)):
            began = time.monotonic()
            with pytest.raises(LinkDown):
                await ask()
            assert time.monotonic() - began < 5
        await feed.close()
    finally:
        server.thaw()
    await until(lambda: _is(link.connected))
    await link.declare_queue("q")
    assert list(await link.publish([message("q")])) == [None]
