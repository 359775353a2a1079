"""What jobs tell reaches who watches them, from our workers by themselves and from stock ones by the recorder."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from dure import Dure, State
from dure.event import JobEvent
from dure.job import Job
from dure.link import WatchFeed
from dure.watch import job_key, root_key, task_key
from dure.wire import read_events, task_message

PATIENCE = 60.0
WHOLE = [State.QUEUED, State.STARTED, State.SUCCESS]


@pytest.fixture
async def feed(client: Dure) -> AsyncIterator[WatchFeed]:
    feed = await client.link.watch()
    yield feed
    await feed.close()


async def send(client: Dure, task: str, *args: object, queue: str, root_id: str | None = None) -> str:
    """As another program would: the ledger knows of it by its events."""
    job = Job(id=str(uuid4()), task=task, args=list(args), queue=queue, root_id=root_id)
    assert list(await client.link.publish([task_message(job)])) == [None]
    return job.id


async def states(feed: WatchFeed, *job_ids: str) -> dict[str, list[State]]:
    """Of these jobs, as they came, until all have ended."""
    found: dict[str, list[State]] = {job_id: [] for job_id in job_ids}
    async with asyncio.timeout(PATIENCE):
        while not all(any(state.final for state in told) for told in found.values()):
            for body in await feed.batch(500):
                for event in read_events(body):
                    if isinstance(event, JobEvent) and event.job_id in found:
                        found[event.job_id].append(event.state)
    return found


@pytest.mark.parametrize("queue", ["celery", "stock"])
async def test_the_states_of_a_job_come_under_its_id(client: Dure, feed: WatchFeed, queue: str) -> None:
    job = Job(id=str(uuid4()), task="shop.add", args=[1], queue=queue)
    await feed.bind([job_key(job.id)])
    await client.link.publish([task_message(job)])
    assert await states(feed, job.id) == {job.id: WHOLE}


@pytest.mark.parametrize("queue", ["celery", "stock"])
async def test_the_states_of_a_task_come_under_its_name(client: Dure, feed: WatchFeed, queue: str) -> None:
    await feed.bind([task_key("shop.echo")])
    jobs = [await send(client, "shop.echo", n, queue=queue) for n in range(30)]
    assert await states(feed, *jobs) == dict.fromkeys(jobs, WHOLE)


@pytest.mark.parametrize("queue", ["celery", "stock"])
async def test_the_states_of_nodes_come_under_their_workflow(client: Dure, feed: WatchFeed, queue: str) -> None:
    root = str(uuid4())
    await feed.bind([root_key(root)])
    jobs = [await send(client, "shop.add", n, queue=queue, root_id=root) for n in range(3)]
    assert await states(feed, *jobs) == dict.fromkeys(jobs, WHOLE)


async def test_a_busy_worker_tells_of_all_its_jobs(client: Dure, feed: WatchFeed) -> None:
    await feed.bind([task_key("shop.nothing")])
    jobs = [Job(id=str(uuid4()), task="shop.nothing", queue="celery", root_id=str(uuid4())) for _ in range(1000)]
    await client.link.publish([task_message(job) for job in jobs])
    ids = [job.id for job in jobs]
    assert await states(feed, *ids) == dict.fromkeys(ids, WHOLE)


async def test_who_watches_another_job_hears_nothing(client: Dure, feed: WatchFeed) -> None:
    first, second = (Job(id=str(uuid4()), task="shop.add", args=[1], queue=queue) for queue in ("celery", "stock"))
    await feed.bind([job_key("another"), task_key("shop"), root_key(first.id)])
    everything = await client.link.watch()
    await everything.bind([job_key(first.id), job_key(second.id)])
    await client.link.publish([task_message(first), task_message(second)])
    await states(everything, first.id, second.id)
    await everything.close()
    await client.link.tell(b"last", "dure.told", [job_key("another")])
    async with asyncio.timeout(PATIENCE):
        assert list(await feed.batch(500)) == [b"last"]
