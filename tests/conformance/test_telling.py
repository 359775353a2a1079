"""What is told again to those who watch, over every link and ledger."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import structs

from dure.client.telling import Telling
from dure.event import JobEvent
from dure.job import Job, State
from dure.ledger import Ledger
from dure.link import Link, WatchFeed
from dure.watch import job_key, root_key, task_key
from dure.wire import Changed, WireEvent, read_events
from dure.workflow import Workflow
from tests.conformance.links import PATIENCE, Broker, read

NOW = 1_800_000_000.0


@pytest.fixture
async def telling(link: Link, ledger: Ledger) -> AsyncIterator[Telling]:
    telling = Telling(link, ledger)
    yield telling
    await telling.close()


@pytest.fixture
async def feed(link: Link) -> WatchFeed:
    feed = await link.watch()
    await feed.bind([job_key("last")])
    return feed


def stock(kind: str, job_id: str, **more: Any) -> dict[str, Any]:
    return {"type": f"task-{kind}", "uuid": job_id, "timestamp": NOW, "hostname": "stock@here", "clock": 1} | more


def again(telling: Telling, *events: dict[str, Any]) -> None:
    """As the recorder hands a message on; Celery's own JSON has spaces in it."""
    body = json.dumps(list(events) if len(events) > 1 else events[0]).encode()
    telling.again(body, list(read_events(body)))


async def pushed(telling: Telling, feed: WatchFeed) -> list[WireEvent]:
    """All that the feed has been given up to here."""
    telling.changed([Job(id="last", task="last")], [])
    found: list[WireEvent] = []
    while not (found and isinstance(found[-1], Changed) and found[-1].uuid == "last"):
        for body in await read(feed, 1):
            found += read_events(body)
    return found[:-1]


async def test_events_of_stock_workers_are_told_under_the_keys_of_their_jobs(telling: Telling, feed: WatchFeed) -> None:
    await feed.bind([job_key("a"), task_key("t.b")])
    events = [
        stock("received", "a", name="t.a", root_id="a"),
        stock("received", "b", name="t.b", root_id="w"),
        stock("received", "c", name="t.c", root_id="c"),
        stock("started", "a"),
        stock("succeeded", "b", result="1", runtime=0.5),
        stock("started", "c"),
    ]
    for event in events:
        again(telling, event)
    found = await pushed(telling, feed)
    assert [(e.job_id, e.state, e.task, e.root_id) for e in found if isinstance(e, JobEvent)] == [
        ("a", State.QUEUED, "t.a", "a"),
        ("b", State.QUEUED, "t.b", "w"),
        ("c", State.QUEUED, "t.c", "c"),
        ("a", State.STARTED, "t.a", "a"),
        ("b", State.SUCCESS, "t.b", "w"),
        ("c", State.STARTED, "t.c", "c"),
    ]


async def test_messages_that_come_at_once_are_told_as_one(telling: Telling, feed: WatchFeed) -> None:
    await feed.bind([job_key("a"), job_key("b")])
    events = [stock("started", "a"), stock("failed", "a", exception="ValueError('é')"), stock("started", "b")]
    again(telling, *events[:2])
    again(telling, events[2])
    (body,) = await read(feed, 1)
    assert list(read_events(body)) == list(read_events(json.dumps(events).encode()))
    assert json.loads(body)["type"] == "dure-told"  # else Flower would count each event twice


async def test_what_only_the_ledger_knows_of_a_job_is_asked_of_it(
    telling: Telling, ledger: Ledger, feed: WatchFeed
) -> None:
    await ledger.accept([(Job(id="a", task="t.a", root_id="w", created_at=NOW), NOW)])
    await feed.bind([task_key("t.a")])
    again(telling, stock("started", "a"), stock("started", "nobody knows it"))
    again(telling, stock("succeeded", "a", result="1"))
    found = await pushed_by(feed, 3)
    assert [event.job_id for event in found] == ["a", "nobody knows it", "a"]
    await feed.unbind([task_key("t.a")])
    await feed.bind([root_key("w")])
    again(telling, stock("started", "a"))
    assert [event.job_id for event in await pushed_by(feed, 1)] == ["a"]


async def pushed_by(feed: WatchFeed, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        for body in await read(feed, 1):
            found += read_events(body)
    return found


async def test_events_of_our_own_workers_have_their_keys_and_are_not_told_again(
    telling: Telling, feed: WatchFeed
) -> None:
    await feed.bind([job_key("a"), job_key("b"), "dure.task.#"])
    again(telling, stock("started", "a", attempt=1))
    again(telling, stock("failed", "a", attempt=1), stock("failed", "b", name="t"))  # with a job that was to follow it
    again(telling, {"type": "worker-heartbeat", "hostname": "h", "timestamp": NOW})
    again(telling, {"type": "dure-entries", "uuid": "a", "run": 1, "timestamp": NOW, "entries": [[1, NOW, "log", {}]]})
    assert await pushed(telling, feed) == []


async def test_what_the_ledger_changed_is_told_to_who_watches_job_task_or_workflow(
    telling: Telling, link: Link, feed: WatchFeed
) -> None:
    other = await link.watch()
    await feed.bind([job_key("a"), task_key("t")])
    await other.bind([root_key("w")])
    job = Job(id="a", task="t", root_id="w", state=State.REVOKED)
    telling.changed([job, structs.replace(job, id="b")], [Workflow(id="w", state=State.FAILURE)])
    wanted = [
        Changed(uuid="a", root_id="w", task="t"),
        Changed(uuid="b", root_id="w", task="t"),
        Changed(root_id="w", workflow={"id": "w", "state": "FAILURE"}),
    ]
    assert await pushed_by(other, 3) == wanted
    assert await pushed(telling, feed) == wanted  # they came in one message


async def test_a_great_many_changes_arrive(telling: Telling, feed: WatchFeed) -> None:
    ids = [f"{n:0100}" for n in range(2000)]
    await feed.bind([root_key("w")])
    telling.changed([Job(id=job_id, task="t", root_id="w") for job_id in ids], [])
    assert [event.uuid for event in await pushed_by(feed, 2000)] == ids


async def test_nothing_is_raised_and_nothing_kept_while_the_broker_is_away(broker: Broker, ledger: Ledger) -> None:
    link = await broker.link()
    telling = Telling(link, ledger)
    await link.close()
    for _ in range(3):
        telling.changed([Job(id="a", task="t")], [])
        again(telling, stock("started", "a"))
        await asyncio.wait({task for task in asyncio.all_tasks() if task.get_name() == "dure-telling"})
    await link.open()
    async with asyncio.timeout(PATIENCE):
        while not link.connected:
            await asyncio.sleep(0.02)
    feed = await link.watch()
    await feed.bind([job_key("a"), job_key("last")])
    assert await pushed(telling, feed) == []
    await telling.close()
