"""Messages that a queue gives up, and what is told of them."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from kombu import Exchange, Producer, Queue

import dure.broker  # noqa: F401 - teaches kombu dure://
from dure import dead
from dure.errors import LinkDown
from dure.job import Reason, State
from dure.link import Link
from tests.conformance.links import PATIENCE, Broker, depth, job_message, letters, message, read, reject, until


async def test_a_rejected_message_arrives_as_it_was_with_its_reason_and_queue(link: Link, broker: Broker) -> None:
    await link.declare_queue("q")
    sent = job_message("q", "job-1")
    assert list(await link.publish([sent])) == [None]
    await asyncio.to_thread(reject, broker, "q")
    feed = await link.dead_letters()
    (letter,) = await read(feed, 1)
    assert (letter.job_id, letter.reason, letter.queue) == ("job-1", Reason.REJECTED, "q")
    assert letter.body == sent.body
    event = dead.event(letter, 1.0)
    assert event is not None
    assert (event.job_id, event.task, event.state) == ("job-1", "t", State.FAILURE)
    await feed.ack()
    await feed.close()


async def test_a_message_that_expires_in_its_queue_is_a_dead_letter(link: Link) -> None:
    await link.declare_queue("q")
    feed = await link.dead_letters()
    await link.publish([job_message("q", "job-1", expiration="1")])
    assert await letters(feed, 1) == [("job-1", Reason.EXPIRED, "q")]
    await feed.close()


async def test_a_message_that_is_given_back_too_often_is_a_dead_letter(broker: Broker) -> None:
    link = await broker.link(delivery_limit=2)
    await link.declare_queue("q")
    feed = await link.dead_letters()
    await link.publish([job_message("q", "job-1")])
    for _ in range(3):
        await asyncio.to_thread(reject, broker, "q", requeue=True)
    assert await letters(feed, 1) == [("job-1", Reason.DELIVERY_LIMIT, "q")]
    await feed.close()


async def test_dead_letters_are_kept_while_nobody_reads_and_given_again_until_acknowledged(
    link: Link, broker: Broker
) -> None:
    await link.declare_queue("q")
    await link.publish([job_message("q", f"job-{n}") for n in range(3)])
    for _ in range(3):
        await asyncio.to_thread(reject, broker, "q")
    feed = await link.dead_letters()
    assert len(await read(feed, 3)) == 3
    await feed.close()
    other = await (await broker.link()).dead_letters()
    assert sorted(str(job) for job, _, _ in await letters(other, 3)) == ["job-0", "job-1", "job-2"]
    await other.ack()
    await other.close()

    async def nobody_reads() -> bool:
        return (await depth(link, "dure.dead"))[1] == 0

    await until(nobody_reads)
    assert await depth(link, "dure.dead") == (0, 0, True)


async def test_readers_share_the_dead_letters(link: Link, broker: Broker) -> None:
    feeds = [await link.dead_letters(), await (await broker.link()).dead_letters()]
    await link.publish([message("dure.dead", str(n).encode()) for n in range(20)])
    seen: list[bytes] = []

    async def reader(feed: Any) -> None:
        while True:
            seen.extend(letter.body for letter in await feed.batch(1))
            await feed.ack()

    readers = [asyncio.create_task(reader(feed)) for feed in feeds]

    async def all_seen() -> bool:
        return len(seen) >= 20

    await until(all_seen)
    for task in readers:
        task.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert sorted(seen) == sorted(str(n).encode() for n in range(20))
    for feed in feeds:
        await feed.close()


async def test_a_name_of_ones_own_is_taken_for_the_dead_letters(broker: Broker) -> None:
    link = await broker.link(dead_queue="graveyard")
    await link.declare_queue("q")
    await link.publish([job_message("q", "job-1")])
    await asyncio.to_thread(reject, broker, "q")
    feed = await link.dead_letters()
    assert await letters(feed, 1) == [("job-1", Reason.REJECTED, "q")]
    await feed.close()
    assert not (await depth(link, "dure.dead"))[2]


async def test_what_is_there_already_is_declared_again_by_others_and_used(broker: Broker) -> None:
    links = [await broker.link() for _ in range(2)]
    for link in links:
        feed = await link.dead_letters()
        await feed.close()
    for link in links:
        await link.declare_queue("q")
        await link.declare_queue("q")
        await link.declare_queue("dure.dead")
    assert list(await links[0].publish([job_message("q", "job-1")])) == [None]
    await asyncio.to_thread(reject, broker, "q")
    feed = await links[1].dead_letters()
    assert await letters(feed, 1) == [("job-1", Reason.REJECTED, "q")]
    await feed.close()


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
async def test_the_embedded_broker_keeps_the_dead_letters_of_a_queue_that_was_there_before(
    link: Link, broker: Broker
) -> None:
    with broker.kombu() as connection, connection.channel() as channel:
        Queue("old", durable=True)(channel).declare()
    await link.declare_queue("old", defined_by_application=True)
    await link.publish([job_message("old", "job-1")])
    await asyncio.to_thread(reject, broker, "old")
    feed = await link.dead_letters()
    assert await letters(feed, 1) == [("job-1", Reason.REJECTED, "old")]
    await feed.close()


# RabbitMQ has types of queues and of header values, permissions, and lets nobody change a queue that exists.


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
async def test_headers_of_every_type_of_amqp_are_carried(link: Link, broker: Broker) -> None:
    feed = await link.dead_letters()
    headers = {
        "id": "job-1",
        "at": datetime.now(UTC),
        "raw": b"\xff\x00",
        "price": Decimal("1.25"),
        "nested": {"at": datetime.now(UTC), "list": [1, None, True, 1.5, 2**40]},
        "x-death": [{"reason": b"\xff", "queue": 7, "time": datetime.now(UTC)}, "odd"],
        "dure_attempt": datetime.now(UTC),
    }
    with broker.kombu() as connection, connection.channel() as channel:
        exchange = Exchange("dure.dead", type="fanout", durable=True)
        Producer(channel, exchange).publish({}, headers=headers, routing_key="somewhere")
    (letter,) = await read(feed, 1)
    assert (letter.job_id, letter.reason) == ("job-1", Reason.REJECTED)
    event = dead.event(letter, 1.0)
    assert event is not None
    assert event.job_id == "job-1"
    await feed.close()


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize(("queue_type", "limit"), [("quorum", 7), ("classic", None)])
async def test_a_queue_that_we_make_names_the_dead_exchange_and_one_of_the_applications_does_not(
    broker: Broker, queue_type: str, limit: int | None
) -> None:
    link = await broker.link(queue_type=queue_type, delivery_limit=7)
    await link.declare_queue("ours")
    ours = _queue(broker, "ours")
    assert ours["arguments"]["x-dead-letter-exchange"] == "dure.dead"
    assert ours["arguments"].get("x-delivery-limit") == limit
    plain = {"x-queue-type": "quorum"} if queue_type == "quorum" else {}
    dead_queue = _queue(broker, "dure.dead")
    assert {**dead_queue["arguments"], **plain} == dead_queue["arguments"]
    assert dead_queue["arguments"].get("x-delivery-limit", 1_000_000) == 1_000_000  # and not the one of a broker
    assert dead_queue["durable"]
    await link.declare_queue("theirs", defined_by_application=True)
    assert "x-dead-letter-exchange" not in _queue(broker, "theirs")["arguments"]


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
async def test_a_queue_of_other_arguments_is_left_as_it_is(link: Link, broker: Broker) -> None:
    with broker.kombu() as connection, connection.channel() as channel:
        Queue("old", durable=True, queue_arguments={"x-max-priority": 5})(channel).declare()
        Queue("dure.dead", durable=True, queue_arguments={"x-max-length": 5})(channel).declare()
    await link.declare_queue("old")
    feed = await link.dead_letters()
    await feed.close()
    assert _queue(broker, "old")["arguments"] == {"x-max-priority": 5}
    assert _queue(broker, "dure.dead")["arguments"] == {"x-max-length": 5}


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
async def test_where_the_broker_allows_no_dead_letters_a_queue_is_made_without(broker: Broker) -> None:
    assert broker.server is not None
    broker.url = broker.server.user(broker.url, "modest", may_declare="^(q|amq\\.gen.*)$")
    link = await broker.link()
    await link.declare_queue("q")
    assert list(await link.publish([message("q")])) == [None]
    assert "x-dead-letter-exchange" not in _queue(broker, "q")["arguments"]


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
async def test_a_feed_whose_queue_is_deleted_ends(link: Link, broker: Broker) -> None:
    feed = await link.dead_letters()
    waiting = asyncio.create_task(feed.batch(1))
    with broker.kombu() as connection, connection.channel() as channel:
        channel.queue_delete("dure.dead")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(LinkDown):
            await waiting
        with pytest.raises(LinkDown):
            await feed.batch(1)
    await feed.close()
    again = await link.dead_letters()
    await link.publish([message("dure.dead")])
    assert len(await read(again, 1)) == 1
    await again.close()


def _queue(broker: Broker, name: str) -> Any:
    assert broker.server is not None
    return json.loads(broker.server.api("GET", f"queues/{broker.url.rpartition('/')[2]}/{name}"))
