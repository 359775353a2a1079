"""Jobs that nobody may begin any more, and jobs that a queue still holds."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import aiormq
import pytest
from aiormq.abc import DeliveredMessage
from kombu import Exchange, Queue

import dure.broker  # noqa: F401 - teaches kombu dure://
from dure import revocation
from dure.broker.store import Store
from dure.errors import LinkDown
from dure.link import Link
from dure.revocation import STREAM, Revocation
from dure.url import file_path
from tests.conformance.links import PATIENCE, Broker, depth, job_message, message


async def recorded(broker: Broker, count: int) -> list[Revocation]:
    """What a worker finds that starts now, until it knows of `count` jobs."""
    if broker.server is None:
        store = Store(file_path(broker.url))
        try:
            return [entry for _, entry in store.revocations(0)]
        finally:
            store.close()
    found: list[Revocation] = []
    complete = asyncio.Event()

    async def take(delivered: DeliveredMessage) -> None:
        entry = revocation.read(bytes(delivered.body))
        assert entry is not None
        found.append(entry)
        if sum(len(each.ids) for each in found) >= count:
            complete.set()

    async with aiormq.connect(broker.url) as connection, asyncio.timeout(PATIENCE):
        channel = await connection.channel()
        await channel.basic_qos(prefetch_count=100)
        await channel.basic_consume(STREAM, take, arguments={"x-stream-offset": "first"})
        await complete.wait()
    return found


async def test_a_revocation_is_kept_for_workers_that_start_later(broker: Broker) -> None:
    link = await broker.link()
    await link.revoke(["a", "b"], terminate=False)
    await link.revoke(["c"], terminate=True)
    await link.close()
    found = await recorded(broker, 3)
    assert {job: entry.terminate for entry in found for job in entry.ids} == {"a": False, "b": False, "c": True}
    assert [job for entry in found for job in entry.ids] == ["a", "b", "c"]
    assert all(entry.at > 1_600_000_000 for entry in found)


async def test_many_jobs_are_revoked_at_once(broker: Broker, link: Link) -> None:
    ids = [f"job-{n:04}" for n in range(1200)]
    await link.revoke(ids, terminate=True)
    found = await recorded(broker, 1200)
    assert [job for entry in found for job in entry.ids] == ids
    assert all(len(entry.ids) <= 500 for entry in found)


async def test_no_job_is_nothing_to_revoke(link: Link) -> None:
    await link.revoke([], terminate=True)


async def test_running_workers_are_told_by_celerys_revoke(broker: Broker, link: Link) -> None:
    heard = _listener(broker)
    await link.revoke([f"job-{n}" for n in range(700)], terminate=True)
    told = [_taken(broker, heard) for _ in range(2)]
    assert [order["method"] for order in told] == ["revoke", "revoke"]
    assert [len(order["arguments"]["task_id"]) for order in told] == [500, 200]
    assert {(order["arguments"]["terminate"], order["arguments"]["signal"]) for order in told} == {(True, "SIGTERM")}


async def test_a_log_that_was_deleted_is_made_again(broker: Broker, link: Link) -> None:
    await link.revoke(["a"], terminate=False)
    if broker.server is not None:
        with broker.kombu() as connection, connection.channel() as channel:
            channel.queue_delete(STREAM)
    await link.revoke(["b"], terminate=False)
    assert "b" in {job for entry in await recorded(broker, 1) for job in entry.ids}


async def test_a_closed_link_revokes_nothing_and_says_so(broker: Broker) -> None:
    link = await broker.link()
    await link.close()
    with pytest.raises(LinkDown):
        await link.revoke(["a"], terminate=False)
    with pytest.raises(LinkDown):
        await link.dead_letters()
    with pytest.raises(LinkDown):
        await link.holds("q", ["a"])


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
async def test_the_log_is_a_stream_of_a_bounded_age(broker: Broker, link: Link) -> None:
    await link.revoke(["a"], terminate=False)
    assert broker.server is not None
    found = json.loads(broker.server.api("GET", f"queues/{broker.url.rpartition('/')[2]}/{STREAM}"))
    assert found["durable"]
    assert found["arguments"] == {
        "x-queue-type": "stream",
        "x-max-age": "30D",
        "x-stream-max-segment-size-bytes": 1_000_000,
    }


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
async def test_where_the_broker_allows_no_stream_the_running_workers_are_told(broker: Broker) -> None:
    heard = _listener(broker)
    assert broker.server is not None
    broker.url = broker.server.user(broker.url, "streamless", may_declare="^(?!dure\\.revoked).*$")
    link = await broker.link()
    await link.revoke(["a"], terminate=False)
    await link.revoke(["b"], terminate=False)
    assert [_taken(broker, heard)["arguments"]["task_id"] for _ in range(2)] == [["a"], ["b"]]
    assert not (await depth(link, STREAM))[2]
    assert link.connected


async def test_a_queue_that_is_not_there_holds_nothing(link: Link) -> None:
    assert await link.holds("missing", ["a"]) == frozenset()


async def test_a_broker_tells_which_jobs_a_queue_holds_or_that_it_cannot(link: Link, broker: Broker) -> None:
    await link.declare_queue("q")
    await link.declare_queue("other")
    await link.publish([job_message("q", "waiting"), job_message("q", "held"), job_message("other", "elsewhere")])
    await link.publish([message("q")])
    with broker.kombu() as connection, connection.channel() as channel:
        assert channel.basic_get("q") is not None
        found = await link.holds("q", ["waiting", "held", "elsewhere", "unknown"])
    assert found == (None if broker.server else frozenset({"waiting", "held"}))


def _listener(broker: Broker) -> str:
    """A queue that hears what workers hear."""
    with broker.kombu() as connection, connection.channel() as channel:
        exchange = Exchange("celery.pidbox", type="fanout", durable=False)
        Queue("heard", exchange, durable=True)(channel).declare()
    return "heard"


def _taken(broker: Broker, queue: str) -> Mapping[str, Any]:
    with broker.kombu() as connection, connection.channel() as channel:
        found = channel.basic_get(queue, no_ack=True)
        assert found is not None
        order: Mapping[str, Any] = json.loads(found.body if isinstance(found.body, str) else bytes(found.body))
        return order
