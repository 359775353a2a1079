"""What every link answers: one suite, on RabbitMQ and on the embedded broker."""

import asyncio
import contextlib
import json
import time
from uuid import uuid4

import pytest
from kombu import Queue

import dure.broker  # noqa: F401 - teaches kombu dure://
from dure.errors import Unroutable
from dure.job import Job
from dure.link import Link
from dure.wire import task_message
from tests.conformance.links import Broker, depth, message, until


async def test_a_published_message_is_in_its_queue_when_publish_returns(link: Link, broker: Broker) -> None:
    await link.declare_queue("q")
    job = Job(id=str(uuid4()), task="t", args=["é\x00"], kwargs={}, queue="q", priority=3)
    assert list(await link.publish([task_message(job)])) == [None]
    assert (await depth(link, "q"))[0] == 1
    with broker.kombu() as connection, connection.channel() as channel:
        found = channel.basic_get("q", no_ack=True)
        assert found is not None
        assert found.headers["id"] == job.id
        assert found.headers["task"] == "t"
        assert found.properties["correlation_id"] == job.id
        assert (found.content_type, found.properties["delivery_mode"]) == ("application/json", 2)
        body = found.body if isinstance(found.body, str) else bytes(found.body).decode()
        assert json.loads(body)[0] == ["é\x00"]


async def test_a_message_that_no_queue_takes_is_told_of_and_the_others_arrive(link: Link) -> None:
    await link.declare_queue("q")
    outcomes = await link.publish([message("q"), message("nowhere"), message("q"), message("nowhere")])
    assert [type(outcome) for outcome in outcomes] == [type(None), Unroutable, type(None), Unroutable]
    assert (await depth(link, "q"))[0] == 2
    assert list(await link.publish([message("q")])) == [None]


async def test_nothing_published_is_nothing_told(link: Link) -> None:
    assert list(await link.publish([])) == []


async def test_a_large_batch_travels_together_and_in_order(link: Link, broker: Broker) -> None:
    await link.declare_queue("q")
    began = time.monotonic()
    outcomes = await link.publish([message("q", str(n).encode()) for n in range(2000)])
    assert list(outcomes) == [None] * 2000
    assert time.monotonic() - began < 5
    assert (await depth(link, "q"))[0] == 2000
    with broker.kombu() as connection, connection.channel() as channel:
        bodies = [channel.basic_get("q", no_ack=True).body for _ in range(50)]
    assert [int(body) for body in bodies] == list(range(50))


async def test_batches_published_at_once_keep_their_outcomes_apart(link: Link) -> None:
    await link.declare_queue("q")
    batches = [[message("q" if n % 2 else "nowhere")] * 5 for n in range(20)]
    outcomes = await asyncio.gather(*(link.publish(batch) for batch in batches))
    for n, outcome in enumerate(outcomes):
        assert [type(one) for one in outcome] == [type(None) if n % 2 else Unroutable] * 5


async def test_a_large_body_is_carried_whole(link: Link, broker: Broker) -> None:
    await link.declare_queue("q")
    body = json.dumps(["x" * 3_000_000]).encode()
    assert list(await link.publish([message("q", body)])) == [None]
    with broker.kombu() as connection, connection.channel() as channel:
        found = channel.basic_get("q", no_ack=True).body
    assert len(found) == len(body)


async def test_a_queue_that_exists_is_used_as_it_is(link: Link, broker: Broker) -> None:
    with broker.kombu() as connection, connection.channel() as channel:
        Queue("old", durable=True, queue_arguments={"x-max-priority": 5})(channel).declare()
    await link.declare_queue("old")
    assert list(await link.publish([message("old")])) == [None]


async def test_a_queue_that_we_make_is_durable(broker: Broker, link: Link) -> None:
    await link.declare_queue("new")
    await link.declare_queue("new")
    if broker.server is None:
        other = await broker.link()
        assert (await depth(other, "new"))[2]
    else:
        vhost = broker.url.rpartition("/")[2]
        found = json.loads(broker.server.api("GET", f"queues/{vhost}/new"))
        assert (found["durable"], found["type"], found["auto_delete"]) == (True, "quorum", False)


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
async def test_a_queue_type_of_ones_own_choice_is_taken(broker: Broker) -> None:
    link = await broker.link(queue_type="classic")
    await link.declare_queue("new")
    assert broker.server is not None
    found = json.loads(broker.server.api("GET", f"queues/{broker.url.rpartition('/')[2]}/new"))
    assert (found["type"], found["durable"]) == ("classic", True)


@pytest.mark.parametrize("name", ["with space", "a/b:c@d,e", "q#.x", "x" * 255])
async def test_a_queue_may_have_any_name_that_a_submission_can_give(link: Link, name: str) -> None:
    await link.declare_queue(name)
    assert list(await link.publish([message(name)])) == [None]
    assert (await depth(link, name))[0] == 1


async def test_a_queue_deleted_behind_our_back_can_be_made_again(link: Link, broker: Broker) -> None:
    await link.declare_queue("q")
    with broker.kombu() as connection, connection.channel() as channel:
        channel.queue_delete("q")
    (outcome,) = await link.publish([message("q")])
    assert isinstance(outcome, Unroutable)
    await link.declare_queue("q")
    assert list(await link.publish([message("q")])) == [None]


async def test_depth_and_consumers_are_told_and_a_missing_queue_is_said_to_be(link: Link, broker: Broker) -> None:
    await link.declare_queue("q")
    await link.publish([message("q")] * 3)
    found = {one.name: one for one in await link.queues(["q", "missing"])}
    assert (found["q"].messages, found["q"].consumers, found["q"].exists) == (3, 0, True)
    assert not found["missing"].exists
    assert list(await link.queues([])) == []
    with broker.kombu() as connection, connection.channel() as channel:
        channel.basic_qos(0, 1, False)
        channel.basic_consume("q", no_ack=False, callback=lambda _: None, consumer_tag="c")

        async def seen() -> bool:
            with contextlib.suppress(TimeoutError, OSError):
                connection.drain_events(timeout=0.01)
            return (await depth(link, "q"))[1] == 1

        await until(seen)
