"""Events out of a broker, and questions to its workers."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import dure.broker  # noqa: F401 - teaches kombu dure://
from dure.errors import Unroutable
from dure.link import EventFeed, Link
from tests.conformance.links import CHECKOUT, PATIENCE, Broker, event, read, until


async def test_every_event_is_given_once_to_one_of_the_readers_of_a_durable_feed(broker: Broker, link: Link) -> None:
    other = await broker.link()
    feeds = [await link.events(["task.#"], durable=True), await other.events(["task.#"], durable=True)]
    wanted = {str(n).encode() for n in range(40)}
    seen: list[bytes] = []

    async def reader(feed: EventFeed) -> None:
        while True:
            seen.extend(await feed.batch(3))
            await feed.ack()

    readers = [asyncio.create_task(reader(feed)) for feed in feeds]
    assert set(await link.publish([event("task.started", body) for body in sorted(wanted)])) == {None}

    async def all_seen() -> bool:
        return len(seen) >= 40

    await until(all_seen)
    for task in readers:
        task.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert sorted(seen) == sorted(wanted)
    for feed in feeds:
        await feed.close()


async def test_what_a_reader_did_not_acknowledge_is_given_again(broker: Broker, link: Link) -> None:
    feed = await link.events(["task.#"], durable=True)
    await link.publish([event("task.started", b"1"), event("task.started", b"2")])
    assert await read(feed, 2) == [b"1", b"2"]
    await feed.close()
    other = await (await broker.link()).events(["task.#"], durable=True)
    assert sorted(await read(other, 2)) == [b"1", b"2"]
    await other.ack()
    await other.close()
    third = await link.events(["task.#"], durable=True)
    await link.publish([event("task.started", b"3")])
    assert await read(third, 1) == [b"3"]
    await third.close()


async def test_a_durable_feed_gathers_while_nobody_reads(link: Link) -> None:
    feed = await link.events(["task.#"], durable=True)
    await feed.close()
    assert list(await link.publish([event("task.started", b"1")])) == [None]
    again = await link.events(["task.#"], durable=True)
    assert await read(again, 1) == [b"1"]
    await again.close()


async def test_each_reader_of_transient_feeds_gets_every_event(link: Link) -> None:
    feeds = [await link.events(["task.#"], durable=False) for _ in range(2)]
    await link.publish([event("task.started", b"1")])
    assert [await read(feed, 1) for feed in feeds] == [[b"1"], [b"1"]]
    for feed in feeds:
        await feed.close()


async def test_a_transient_feed_is_gone_with_its_reader(link: Link) -> None:
    feed = await link.events(["task.#"], durable=False)
    await feed.close()

    async def nobody() -> bool:
        (outcome,) = await link.publish([event("task.started", b"1")])
        return isinstance(outcome, Unroutable)

    await until(nobody)


async def test_a_feed_gives_what_its_patterns_name(link: Link) -> None:
    feed = await link.events(["task.succeeded", "worker.#"], durable=False)
    keys = ["task.started", "task.succeeded", "worker.heartbeat", "task.succeeded.x", "worker"]
    await link.publish([event(key, key.encode()) for key in keys])
    await link.publish([event("worker.last", b"last")])
    assert (await read(feed, 4))[:4] == [b"task.succeeded", b"worker.heartbeat", b"worker", b"last"]
    await feed.close()


async def test_a_feed_waits_until_something_happens(link: Link) -> None:
    feed = await link.events(["task.#"], durable=False)
    waiting = asyncio.create_task(feed.batch(10))
    await asyncio.sleep(0)
    assert not waiting.done()
    await link.publish([event("task.started", b"1")])
    async with asyncio.timeout(PATIENCE):
        assert list(await waiting) == [b"1"]
    await feed.close()


WORKER = """
import sys
import dure.broker
from celery import Celery
app = Celery("app", broker=sys.argv.pop(1))
app.conf.broker_connection_retry_on_startup = True
app.start(argv=["worker", "-P", "solo", "-n", sys.argv.pop(1), "--without-mingle", "--without-gossip", "-l", "INFO"])
"""


@pytest.fixture
def workers(broker: Broker, tmp_path: Path) -> Iterator[list[str]]:
    """Two stock Celery workers that are ready."""
    names = ["one@here", "two@here"]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT / "src")}
    processes = []
    for name in names:
        with (tmp_path / name).open("wb") as log:
            command = [sys.executable, "-c", WORKER, broker.url, name]
            processes.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log))
    try:
        deadline = time.monotonic() + PATIENCE
        while not all(b" ready." in (tmp_path / name).read_bytes() for name in names):
            assert time.monotonic() < deadline, (tmp_path / names[0]).read_text()
            time.sleep(0.05)
        yield names
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def test_workers_answer_a_broadcast_if_they_are_meant_and_hear_of_revoked_jobs(
    link: Link, workers: list[str]
) -> None:
    # A worker is ready a moment before it listens, and may need longer than that for an answer.
    async def all_answer() -> bool:
        return await link.broadcast("ping", {}, timeout=1.0) == {name: {"ok": "pong"} for name in workers}

    await until(all_answer)
    began = time.monotonic()
    assert await link.broadcast("ping", {}, destination=[workers[1]], timeout=PATIENCE) == {workers[1]: {"ok": "pong"}}
    assert time.monotonic() - began < PATIENCE / 2
    one, two = await asyncio.gather(
        link.broadcast("ping", {}, destination=workers, timeout=PATIENCE),
        link.broadcast("registered", {}, destination=[workers[0]], timeout=PATIENCE),
    )
    assert set(one) == set(workers)
    assert "celery.ping" not in two[workers[0]]
    assert await link.broadcast("ping", {}, timeout=0) == {}
    await link.revoke(["a", "b"], terminate=True)

    async def all_know() -> bool:
        told = await link.broadcast("revoked", {}, destination=workers, timeout=PATIENCE)
        return [sorted(told[name]) for name in workers] == [["a", "b"]] * 2

    await until(all_know)


async def test_a_broadcast_that_nobody_hears_has_no_answer(link: Link) -> None:
    async with asyncio.timeout(PATIENCE):
        assert await link.broadcast("ping", {}, timeout=0.2) == {}
        assert await link.broadcast("ping", {}, destination=["nobody@here"], timeout=0.2) == {}
        assert await link.broadcast("ping", {}, timeout=0) == {}
