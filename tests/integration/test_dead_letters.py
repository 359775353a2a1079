"""Dead letters end their jobs, and leave the queue once that is committed."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection

import dure.broker  # noqa: F401 - teaches kombu dure://
from dure import Dure, Job, Reason, State
from dure.event import JobEvent
from dure.ledger import JobFilter
from dure.ledger.dead_letters import DeadLetters
from dure.ledger.recorder import Recorder
from dure.settings import Settings
from dure.wire import task_message
from tests.acceptance.site import Site, site
from tests.services.modes import servers_of

PATIENCE = 20.0


@pytest.fixture(params=["embedded", "production"])
def place(request: pytest.FixtureRequest) -> Iterator[Site]:
    with site(**servers_of(request)) as place:
        yield place


@pytest.fixture
async def client(place: Site) -> AsyncIterator[Dure]:
    names = {name.removeprefix("DURE_").lower(): value for name, value in place.environ.items()}
    async with Dure(Settings(_env_file=None, **names)) as dure:  # type: ignore[arg-type]
        yield dure


@pytest.fixture
async def reader(client: Dure) -> AsyncIterator[DeadLetters]:
    service = DeadLetters(client.ledger, client.link, Recorder(client.ledger, client.link))
    await service.start()
    yield service
    await service.stop()


async def until(found: Callable[[], Awaitable[Any]], what: str = "what was waited for") -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if result := await found():
            return result
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what} did not come")


async def ended(client: Dure, job_id: str) -> Job:
    async def end() -> Job | None:
        job = await client.ledger.job(job_id)
        return job if job is not None and job.state.final else None

    job: Job = await until(end, "the end")
    return job


async def queue_of(client: Dure) -> str:
    name = f"work-{uuid4().hex[:6]}"
    await client.link.declare_queue(name)
    return name


def reject_one(client: Dure, queue: str) -> None:
    """As a worker does that cannot use the message."""
    with Connection(client.settings.broker) as connection, connection.channel() as channel:
        deadline = time.monotonic() + PATIENCE
        while (message := channel.basic_get(queue)) is None:
            assert time.monotonic() < deadline, "no message came"
            time.sleep(0.02)
        channel.basic_reject(message.delivery_tag, requeue=False)


async def depth(client: Dure, queue: str) -> int:
    return (await client.link.queues([queue]))[0].messages


async def test_a_rejected_message_ends_its_job_and_leaves_the_dead_queue(client: Dure, reader: DeadLetters) -> None:
    queue = await queue_of(client)
    handle = await client.submit("shop.add", 1, 2, queue=queue, force=True)

    await asyncio.to_thread(reject_one, client, queue)

    job = await ended(client, handle.id)
    assert (job.state, job.reason, job.args) == (State.FAILURE, Reason.REJECTED, [1, 2])
    assert job.error is not None
    assert job.error.type == "dure.errors.DeadLetter"
    assert job.fingerprint

    async def is_empty() -> bool:
        return await depth(client, "dure.dead") == 0

    await until(is_empty, "an empty dead queue")
    (group,) = await client.dead()
    assert (group.count, group.reason, group.task, group.latest.id) == (1, Reason.REJECTED, "shop.add", handle.id)


async def test_a_job_of_plain_celery_code_is_known_by_its_dead_letter_and_can_be_sent_again(
    client: Dure, reader: DeadLetters
) -> None:
    queue = await queue_of(client)
    foreign = Job(id=str(uuid4()), task="shop.echo", args=["x"], kwargs={"a": [1]}, queue=queue)
    await client.link.publish([task_message(foreign)])

    await asyncio.to_thread(reject_one, client, queue)

    job = await ended(client, foreign.id)
    assert (job.origin, job.task, job.queue) == ("celery", "shop.echo", queue)

    async def told() -> bool:
        known = await client.job(foreign.id)
        return (known.args, known.kwargs) == (["x"], {"a": [1]})

    await until(told, "the arguments")
    again = await client.retry(foreign.id)
    assert (again.job.args, again.job.retry_of) == (["x"], foreign.id)
    assert await client.dead() == []


async def test_what_a_worker_told_of_the_same_delivery_stands_above_its_dead_letter(
    client: Dure, reader: DeadLetters
) -> None:
    queue = await queue_of(client)
    handle = await client.submit("shop.add", 1, 2, queue=queue, force=True)
    told = {"reason": Reason.UNREGISTERED, "worker": "w@here"}
    await client.ledger.record(
        [JobEvent(job_id=handle.id, state=State.FAILURE, at=time.time(), attempt=1, **told)]  # type: ignore[arg-type]
    )

    await asyncio.to_thread(reject_one, client, queue)

    async def is_read() -> bool:
        return await depth(client, queue) == 0 and await depth(client, "dure.dead") == 0

    await until(is_read, "the letter")
    await reader.stop()
    assert (await client.job(handle.id)).reason == Reason.UNREGISTERED


async def test_what_is_no_job_is_passed_over_and_keeps_no_other_back(client: Dure, reader: DeadLetters) -> None:
    queue = await queue_of(client)
    with Connection(client.settings.broker) as connection, connection.channel() as channel:
        connection.Producer(channel).publish(b"\xff\x00 no job", routing_key=queue, content_type="x/y")
    await asyncio.to_thread(reject_one, client, queue)
    handle = await client.submit("shop.add", 1, 2, queue=queue, force=True)

    await asyncio.to_thread(reject_one, client, queue)

    assert (await ended(client, handle.id)).reason == Reason.REJECTED
    assert len((await client.ledger.jobs(JobFilter())).jobs) == 1


async def test_letters_that_came_while_nobody_read_are_not_lost(client: Dure) -> None:
    queue = await queue_of(client)
    handle = await client.submit("shop.add", 1, 2, queue=queue, force=True)
    await asyncio.to_thread(reject_one, client, queue)

    service = DeadLetters(client.ledger, client.link, Recorder(client.ledger, client.link))
    await service.start()
    try:
        assert (await ended(client, handle.id)).reason == Reason.REJECTED
    finally:
        await service.stop()
