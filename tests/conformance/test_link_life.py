"""Links that are opened, closed, cut and mended."""

import asyncio
import time

import pytest

import dure.broker  # noqa: F401 - teaches kombu dure://
from dure.client.connect import connect
from dure.errors import LinkDown, QueueRefused
from dure.settings import Settings
from tests.conformance.links import Broker, message, until


async def test_closing_twice_or_without_opening_is_fine(broker: Broker) -> None:
    link = await broker.link()
    await link.open()
    assert link.connected
    await link.close()
    await link.close()
    assert not link.connected
    unused = connect(Settings(_env_file=None, broker_url=broker.url))
    await unused.close()


async def test_a_closed_link_says_that_it_is_down(broker: Broker) -> None:
    link = await broker.link()
    await link.close()
    with pytest.raises(LinkDown):
        await link.ping()
    (outcome,) = await link.publish([message("q")])
    assert isinstance(outcome, LinkDown)
    with pytest.raises(LinkDown):
        await link.declare_queue("q")
    with pytest.raises(LinkDown):
        await link.queues(["q"])
    with pytest.raises(LinkDown):
        await link.broadcast("ping", {})
    with pytest.raises(LinkDown):
        await link.events(["#"], durable=False)


async def test_a_closed_link_can_be_opened_again(broker: Broker) -> None:
    link = await broker.link()
    await link.close()
    await link.open()
    await until(lambda: _is(link.connected))
    await link.ping()


# RabbitMQ can go away; the embedded broker is a file.


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
async def test_a_broker_that_dies_is_noticed_at_once_and_the_link_mends_itself(broker: Broker) -> None:
    link = await broker.link()
    assert broker.server is not None
    await link.declare_queue("q")
    feed = await link.events(["task.#"], durable=True)
    reading = asyncio.create_task(feed.batch(1))
    await asyncio.to_thread(broker.server.kill)
    try:
        async with asyncio.timeout(10):  # a broker that is silent is given up after thirty
            with pytest.raises(LinkDown):
                await reading
        await until(lambda: _is(not link.connected))
        for ask in (link.ping, lambda: link.declare_queue("new"), lambda: link.events(["#"], durable=True)):
            began = time.monotonic()
            with pytest.raises(LinkDown) as caught:
                await ask()
            assert time.monotonic() - began < 5
            assert "guest:guest" not in str(caught.value)
        began = time.monotonic()
        assert {type(outcome) for outcome in await link.publish([message("q")] * 100)} == {LinkDown}
        assert time.monotonic() - began < 5
        await feed.close()
    finally:
        await asyncio.to_thread(broker.server.start)
    began = time.monotonic()
    await until(lambda: _is(link.connected))
    assert time.monotonic() - began < 15
    await link.declare_queue("q")
    assert list(await link.publish([message("q")])) == [None]


async def _is(condition: bool) -> bool:
    return condition


@pytest.mark.parametrize("url", ["amqp://u:s3cret@127.0.0.1:9/", "amqp://u:s3cret@no-such-host.invalid/"])
async def test_opening_does_not_wait_for_a_broker_that_is_away(url: str) -> None:
    link = connect(Settings(_env_file=None, broker_url=url))
    began = time.monotonic()
    await link.open()
    assert time.monotonic() - began < 8
    assert not link.connected
    with pytest.raises(LinkDown) as caught:
        await link.ping()
    assert "s3cret" not in f"{caught.value} {caught.value.url}"
    await link.close()


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
async def test_a_wrong_password_is_told_as_a_broker_that_is_away(broker: Broker) -> None:
    link = connect(Settings(_env_file=None, broker_url=broker.url.replace("guest:guest", "guest:s3cret")))
    await link.open()
    with pytest.raises(LinkDown) as caught:
        await link.ping()
    assert "s3cret" not in str(caught.value)
    await link.close()


async def test_opening_does_not_wait_for_a_host_that_never_answers() -> None:
    """It takes the connection and says nothing, as a firewall or a stopped broker does."""
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    link = connect(Settings(_env_file=None, broker_url=f"amqp://u:p@127.0.0.1:{port}/"))
    try:
        async with asyncio.timeout(8):
            await link.open()
    finally:
        await link.close()
        silent.close()


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
async def test_a_refused_queue_leaves_the_link_and_the_others_as_they_are(broker: Broker) -> None:
    link = await broker.link()
    await link.declare_queue("q")
    with pytest.raises(QueueRefused):
        await link.declare_queue("amq.reserved")
    assert link.connected
    assert list(await link.publish([message("q")])) == [None]
