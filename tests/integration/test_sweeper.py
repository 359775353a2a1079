"""Silent jobs are settled: by time, by the result backend, by workers and queues, and by nobody's knowing of them."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection

import dure.broker  # noqa: F401 - teaches kombu dure://
from dure import Dure, Job, Reason, State
from dure.client.results import connect_results
from dure.event import JobEvent
from dure.ledger.census import Census
from dure.ledger.sweeper import Sweeper
from dure.wire import Heartbeat
from tests.acceptance.site import Site, site
from tests.services.modes import servers_of

PATIENCE = 20.0
SETTLE_AFTER = 100.0
LATER = SETTLE_AFTER + 1  # a first look that comes when the silence was long enough
LATER_STILL = LATER + SETTLE_AFTER  # and a second one


@pytest.fixture(scope="module", params=["embedded", "production"])
def place(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A broker, a ledger and a result backend; a worker of each kind, of whose events nobody records any."""
    with site(**servers_of(request)) as place:
        place.start_worker("ours", "-Q", "ours", "-I", "tests.acceptance.live_tasks")
        place.start_worker("mute", "-Q", "mute", stock=True)
        place.await_worker("ours")
        place.await_worker("mute")
        yield place


@pytest.fixture
async def client(place: Site) -> AsyncIterator[Dure]:
    async with Dure(place.settings) as dure:
        yield dure


@pytest.fixture
async def sweeper(place: Site, client: Dure) -> AsyncIterator[Sweeper]:
    results = connect_results(place.settings)
    settings = client.settings
    yield Sweeper(
        client.ledger,
        client.link,
        event_queue=settings.event_queue,
        settle_after=SETTLE_AFTER,
        results=results,
        reply_within=1.0,
    )
    await results.close()


async def until(found: Callable[[], Awaitable[Any]], what: str = "what was waited for") -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if result := await found():
            return result
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what} did not come")


async def queued(client: Dure, task: str, *args: Any, queue: str, **options: Any) -> str:
    """A job whose message the broker has, and of which no more is told."""
    handle = await client.submit(task, *args, queue=queue, force=True, **options)

    async def marked() -> bool:
        return (await client.job(handle.id)).queued_at is not None

    await until(marked, "QUEUED")
    return handle.id


async def drain_events(client: Dure) -> None:
    """As a recorder whose events are lost."""
    with Connection(client.settings.broker) as connection, connection.channel() as channel:
        channel.queue_purge(client.settings.event_queue)


async def settle(client: Dure, sweeper: Sweeper, *moments: float) -> None:
    """A round at each moment; once more where a worker spoke meanwhile, for then the sweeper concludes nothing."""
    began = time.time()
    for moment in moments:

        async def round_of_silence(now: float = began + moment) -> bool:
            await drain_events(client)
            await sweeper.settle(now)
            (depth,) = await client.link.queues([client.settings.event_queue])
            return depth.messages == 0

        await until(round_of_silence, "a round without an event")


async def empty(client: Dure, queue: str) -> None:
    async def is_empty() -> bool:
        (depth,) = await client.link.queues([queue])
        return depth.messages == 0

    await until(is_empty, f"an empty {queue}")


async def claimed(client: Dure) -> list[Job]:
    """What a relay would publish now."""
    return [
        job
        for job in await client.ledger.claim_due(time.time() + 10 * LATER, lease=1.0, limit=100)
        if job.state is not State.SCHEDULED
    ]


def _purge(client: Dure, queue: str) -> None:
    with Connection(client.settings.broker) as connection, connection.channel() as channel:
        channel.queue_purge(queue)


async def stored(place: Site, job_id: str) -> None:
    results = connect_results(place.settings)

    async def found() -> bool:
        return job_id in await results.fetch([job_id])

    await until(found, "a stored result")
    await results.close()


async def test_an_end_whose_event_was_lost_is_read_from_the_result_backend(
    place: Site, client: Dure, sweeper: Sweeper
) -> None:
    good = await queued(client, "shop.add", 2, 3, queue="mute")
    bad = await queued(client, "shop.fail", "no stock", queue="mute")
    await stored(place, bad)
    await stored(place, good)

    await settle(client, sweeper, LATER)

    ended = await client.job(good)
    assert (ended.state, ended.result) == (State.SUCCESS, 5)
    failed = await client.job(bad)
    assert (failed.state, failed.reason) == (State.FAILURE, Reason.ERROR)
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("ValueError", "no stock")


async def test_a_message_that_is_nowhere_is_published_anew_at_the_second_look_and_then_the_job_is_lost(
    client: Dure, sweeper: Sweeper
) -> None:
    job_id = await queued(client, "shop.add", 1, 1, queue=f"nobody-{uuid4().hex[:6]}")
    queue = (await client.job(job_id)).queue or ""
    _purge(client, queue)

    await settle(client, sweeper, LATER)
    assert await claimed(client) == []
    await settle(client, sweeper, LATER_STILL)

    (job,) = await claimed(client)
    assert (job.id, job.state) == (job_id, State.QUEUED)
    await client.publisher.publish([job])
    (depth,) = await client.link.queues([queue])
    assert depth.messages == 1
    await settle(client, sweeper, 3 * LATER, 4 * LATER)
    assert (await client.job(job_id)).state is State.QUEUED

    _purge(client, queue)
    await settle(client, sweeper, 5 * LATER, 6 * LATER)

    ended = await client.job(job_id)
    assert (ended.state, ended.reason) == (State.FAILURE, Reason.LOST)


async def test_a_job_that_was_begun_and_is_nowhere_ends_lost(client: Dure, sweeper: Sweeper) -> None:
    job_id = await queued(client, "shop.add", 1, 1, queue=f"gone-{uuid4().hex[:6]}")
    with Connection(client.settings.broker) as connection, connection.channel() as channel:
        channel.queue_delete((await client.job(job_id)).queue)
    begun = JobEvent(job_id=job_id, state=State.STARTED, at=time.time(), attempt=1, worker="w@gone")
    await client.ledger.record([begun])

    await settle(client, sweeper, LATER)
    assert (await client.job(job_id)).state is State.STARTED
    await settle(client, sweeper, LATER_STILL)

    assert (await client.job(job_id)).reason == Reason.LOST


async def test_a_job_of_plain_celery_code_that_is_nowhere_ends_lost(client: Dure, sweeper: Sweeper) -> None:
    foreign = str(uuid4())
    await client.ledger.record([JobEvent(job_id=foreign, state=State.QUEUED, at=time.time(), queue="nobody-foreign")])

    await settle(client, sweeper, LATER, LATER_STILL)

    assert (await client.job(foreign)).reason == Reason.LOST


async def test_a_job_whose_message_still_waits_stays_open(client: Dure, sweeper: Sweeper) -> None:
    job_id = await queued(client, "shop.add", 1, 1, queue=f"waiting-{uuid4().hex[:6]}")

    await settle(client, sweeper, LATER, LATER_STILL, 2 * LATER_STILL)

    assert (await client.job(job_id)).state is State.QUEUED


async def test_nothing_is_looked_at_that_was_not_silent_for_long(client: Dure, sweeper: Sweeper) -> None:
    job_id = await queued(client, "shop.add", 1, 1, queue=f"fresh-{uuid4().hex[:6]}")
    _purge(client, (await client.job(job_id)).queue or "")

    await settle(client, sweeper, SETTLE_AFTER / 2, SETTLE_AFTER / 2 + 20)

    assert (await client.job(job_id)).state is State.QUEUED


@contextlib.asynccontextmanager
async def known_worker(client: Dure, name: str) -> AsyncIterator[str]:
    """The ledger has heard of the worker just now."""
    hostname = f"{name}@here"
    census = Census(client.ledger, client.link)
    await until(lambda: census.ask([hostname]), f"an answer of {name}")  # it is ready a moment before it listens
    await client.ledger.record([], [], [Heartbeat(hostname=hostname, at=time.time(), online=True, started=False)])
    yield hostname


async def test_a_job_that_a_worker_runs_stays_open(client: Dure, sweeper: Sweeper, tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with known_worker(client, "ours"):
        job_id = await queued(client, "live.talk", 1, str(go), queue="ours")
        await empty(client, "ours")
        try:
            await settle(client, sweeper, LATER, LATER_STILL)
            assert not (await client.job(job_id)).state.final
        finally:
            go.touch()


async def test_while_a_worker_of_the_queue_does_not_answer_its_jobs_stay_open(
    place: Site, client: Dure, sweeper: Sweeper, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    async with known_worker(client, "ours"):
        job_id = await queued(client, "live.talk", 1, str(go), queue="ours")
        await empty(client, "ours")
        process = place.processes[0]
        os.kill(process.pid, signal.SIGSTOP)
        try:
            await settle(client, sweeper, LATER, LATER_STILL)
            assert not (await client.job(job_id)).state.final
        finally:
            go.touch()
            os.kill(process.pid, signal.SIGCONT)


async def test_while_somebody_unknown_consumes_the_queue_its_jobs_stay_open(client: Dure, sweeper: Sweeper) -> None:
    job_id = await queued(client, "shop.add", 1, 1, queue=f"held-{uuid4().hex[:6]}")
    queue = (await client.job(job_id)).queue or ""
    arrived: list[Any] = []
    with Connection(client.settings.broker) as connection, connection.channel() as channel:
        channel.basic_consume(queue, no_ack=False, callback=arrived.append, consumer_tag="unknown")
        while not arrived:
            connection.drain_events(timeout=PATIENCE)
        await settle(client, sweeper, LATER, LATER_STILL)
        assert job_id not in {job.id for job in await claimed(client)}
    assert (await client.job(job_id)).state is State.QUEUED


async def test_while_events_wait_to_be_recorded_no_job_is_given_up(client: Dure, sweeper: Sweeper) -> None:
    job_id = await queued(client, "shop.add", 1, 1, queue=f"nobody-{uuid4().hex[:6]}")
    _purge(client, (await client.job(job_id)).queue or "")
    await settle(client, sweeper, LATER)
    with Connection(client.settings.broker) as connection, connection.channel() as channel:
        connection.Producer(channel).publish(
            b"[]", routing_key=client.settings.event_queue, content_type="application/json"
        )

    await sweeper.settle(time.time() + LATER_STILL)

    assert (await client.job(job_id)).state is State.QUEUED


async def test_a_job_whose_time_is_over_ends_expired_though_nobody_listens(client: Dure, sweeper: Sweeper) -> None:
    job_id = await queued(client, "shop.add", 1, 1, queue=f"nobody-{uuid4().hex[:6]}", expires=50)
    scheduled = await client.submit("shop.add", 1, 1, force=True, delay=5000, expires=60)

    await sweeper.expire(time.time() + 30)
    assert (await client.job(job_id)).state is State.QUEUED
    await sweeper.expire(time.time() + 100)

    ended: Job = await client.job(job_id)
    assert (ended.state, ended.reason) == (State.FAILURE, Reason.EXPIRED)
    assert (await scheduled.refresh()).reason == Reason.EXPIRED
    assert await client.ledger.next_due() > time.time() + 4000 or scheduled.id not in [
        job.id for job in await client.ledger.claim_due(time.time() + 6000, lease=1, limit=100)
    ]


async def test_a_retry_that_waits_and_a_job_for_later_stay_open(client: Dure, sweeper: Sweeper) -> None:
    waiting, later = str(uuid4()), str(uuid4())
    now = time.time()
    await client.ledger.record(
        [
            JobEvent(job_id=waiting, state=State.RETRY, at=now + 20, attempt=1, queue="nobody-retries", attempts=1),
            JobEvent(job_id=later, state=State.QUEUED, at=now, queue="nobody-later", eta=now + 10_000),
        ]
    )

    await settle(client, sweeper, LATER, LATER + 5)
    assert (await client.job(waiting)).state is State.RETRY
    await settle(client, sweeper, LATER_STILL, 2 * LATER_STILL)

    assert (await client.job(later)).state is State.QUEUED
    assert (await client.job(waiting)).reason == Reason.LOST
