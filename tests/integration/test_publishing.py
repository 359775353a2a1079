"""From committed rows to confirmed messages, on RabbitMQ and PostgreSQL: in time, once, and whoever dies."""

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Queue

from dure import Dure, State, Submission
from dure.client.leases import LEASE
from dure.client.publisher import Publisher
from dure.errors import LedgerUnavailable
from dure.ledger import JobFilter
from dure.ledger.relay import Relay
from dure.settings import Settings
from dure.wire import Message
from tests.conformance.ledgers import frozen
from tests.services import PostgreSQL

PATIENCE = 30.0
QUEUE = "published"
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def settings(rabbitmq_url: str, postgres_url: str, tmp_path: Path) -> Settings:
    return Settings(_env_file=None, home=tmp_path, broker_url=rabbitmq_url, ledger_url=postgres_url)


@contextlib.asynccontextmanager
async def relaying(settings: Settings) -> AsyncIterator[Dure]:
    """A client whose relay runs, and which is connected."""
    async with Dure(settings) as dure:
        relay = Relay(dure.ledger, dure.link, dure.publisher, lease=LEASE)
        await until(lambda: dure.link.connected)
        await relay.start()
        try:
            yield dure
        finally:
            await relay.stop()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.02)


def submissions(count: int, **options: Any) -> list[Submission]:
    return [
        Submission(task="later.task", args=[n], force=True, options={"queue": QUEUE, **options}) for n in range(count)
    ]


async def all_are(dure: Dure, state: State, count: int) -> bool:
    return await dure.ledger.count_jobs(JobFilter(state=state)) == count


async def messages(dure: Dure) -> int:
    (depth,) = await dure.link.queues([QUEUE])
    return depth.messages


class Arrivals:
    """When each message was in the queue, by job id, told by a consumer in a thread of its own."""

    def __init__(self, url: str) -> None:
        self.seen: list[tuple[str, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._consume, args=(url,))

    def _consume(self, url: str) -> None:
        with Connection(url) as connection:
            consumer = connection.Consumer(Queue(QUEUE, no_declare=True), no_ack=True, on_message=self._note)
            with consumer:
                while not self._ended.is_set():
                    with contextlib.suppress(TimeoutError):
                        connection.drain_events(timeout=0.1)

    def _note(self, message: Any) -> None:
        self.seen.append((message.headers["id"], time.time()))

    def __enter__(self) -> "Arrivals":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


async def test_two_relays_share_what_is_due_at_one_moment_each_message_once_and_in_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dure.ledger.relay._BATCH", 50)  # so that none takes them all
    async with relaying(settings) as one, relaying(settings) as two:
        shares = [shared(each) for each in (one, two)]
        await one.link.declare_queue(QUEUE)
        with Arrivals(settings.broker) as arrivals:
            moment = time.time() + 2
            handles = await one.submit_many(submissions(500, delay=moment - time.time()))
            due = {handle.id: handle.job.eta for handle in handles}
            await until(lambda: len(arrivals.seen) >= 500)
            await until(lambda: all_are(one, State.QUEUED, 500))
        assert Counter(name for name, _ in arrivals.seen) == Counter(dict.fromkeys(due, 1))
        late = sorted(at - (due[name] or 0) for name, at in arrivals.seen)
        print(f"lateness: p50 {statistics.median(late):.3f} s, p95 {late[474]:.3f} s, most {late[-1]:.3f} s")
        assert late[0] >= 0
        assert late[474] < 2
        assert sum(map(sum, shares)) == 500
        assert all(shares)


def shared(dure: Dure) -> list[int]:
    """How many jobs each publish of this client takes."""
    sizes: list[int] = []
    publish = dure.publisher.publish

    async def counted(jobs: Sequence[Any]) -> None:
        sizes.append(len(jobs))
        await publish(jobs)

    dure.publisher.publish = counted  # type: ignore[method-assign]
    return sizes


DYING = """
import asyncio, os, signal, sys
from dure import Dure
from dure.client.leases import LEASE
from dure.ledger.relay import Relay
from dure.settings import Settings

class Dying:
    room = 10_000

    async def publish(self, jobs):
        print(len(jobs), file=sys.stderr, flush=True)  # the log is on standard output
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with Dure(Settings(_env_file=None, broker_url=sys.argv[1], ledger_url=sys.argv[2])) as dure:
        await Relay(dure.ledger, dure.link, Dying(), lease=LEASE).run()

asyncio.run(main())
"""


@contextlib.contextmanager
def dying_relay(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    command = [sys.executable, "-c", DYING, settings.broker, settings.ledger]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=settings.home
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_what_a_relay_that_was_killed_had_claimed_is_published_within_five_seconds(settings: Settings) -> None:
    async with Dure(settings) as dure:
        await until(lambda: dure.link.connected)
        await dure.submit_many(submissions(20, delay=0.1))
        with dying_relay(settings) as process:
            assert process.stderr is not None
            claimed = int(await asyncio.to_thread(process.stderr.readline))
            assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
        died = time.monotonic()
        assert claimed == 20
        assert await dure.ledger.claim_due(time.time(), lease=LEASE, limit=99) == []
        async with relaying(settings):
            await until(lambda: all_are(dure, State.QUEUED, 20))
        assert time.monotonic() - died < 5 + 2  # with time for a machine that does other things too
        assert await messages(dure) == 20


async def test_a_confirmation_is_written_down_when_the_ledger_is_back_and_nothing_is_published_again(
    settings: Settings, postgres: PostgreSQL
) -> None:
    async with relaying(settings) as dure:
        publish = dure.link.publish
        published = []
        stopped = asyncio.Event()  # a server that is told to stop does not count as running while it stops

        async def then_stop(batch: Sequence[Message]) -> Sequence[BaseException | None]:
            outcomes = await publish(batch)
            published.append(len(batch))
            await asyncio.to_thread(postgres.stop)
            stopped.set()
            return outcomes

        dure.link.publish = then_stop  # type: ignore[method-assign]
        handle = await dure.submit("later.task", force=True, queue=QUEUE)
        await until(stopped.is_set)
        dure.link.publish = publish  # type: ignore[method-assign]
        await asyncio.sleep(LEASE)  # so that the row is due again when the ledger is back
        await asyncio.to_thread(postgres.start)
        await until(lambda: _is_queued(dure, handle.id))
        later = await dure.submit("later.task", force=True, queue=QUEUE, delay=0.2)
        await until(lambda: _is_queued(dure, later.id))  # so the relay runs again
        assert published == [1]
        assert await messages(dure) == 2
        assert await dure.ledger.next_due() == float("inf")


async def _is_queued(dure: Dure, job_id: str) -> bool:
    with contextlib.suppress(LedgerUnavailable):
        return (await dure.job(job_id)).state is State.QUEUED
    return False


class HangingLink:
    """A broker that takes messages and confirms none, until it is let go."""

    url = "amqp://nobody"
    connected = True

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.taken = 0

    async def declare_queue(self, name: str, *, defined_by_application: bool = False) -> None: ...

    async def publish(self, batch: Sequence[Message]) -> Sequence[None]:
        self.taken += len(batch)
        await self.let_go.wait()
        return [None] * len(batch)


async def test_what_a_broker_that_hangs_takes_is_bounded_and_another_relay_takes_the_rest(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dure.client.publisher._MOST", 300)
    link: Any = HangingLink()
    async with Dure(settings) as dure:
        await until(lambda: dure.link.connected)
        await dure.publisher.close()
        dure.publisher = Publisher(link, dure.ledger, lambda _: False)
        for _ in range(3):
            await dure.submit_many(submissions(100))
        await until(lambda: link.taken == 300)
        assert dure.publisher.room == 0
        ours = Relay(dure.ledger, link, dure.publisher, lease=LEASE)
        await ours.start()
        on_their_way = await dure.ledger.oldest_jobs(JobFilter(), limit=999)
        tasks = len(asyncio.all_tasks())

        for _ in range(4):
            await dure.submit_many(submissions(50))
        assert (link.taken, dure.publisher.room) == (300, 0)
        assert len(asyncio.all_tasks()) <= tasks + 1  # nothing waits in memory; one may be a look of the relay
        rest = {job.id for job in await dure.ledger.claim_due(time.time(), lease=0, limit=999)}
        assert len(rest) == 200
        assert not rest & {job.id for job in on_their_way}

        async with relaying(settings) as other:
            await until(lambda: all_are(dure, State.QUEUED, 200))
            await asyncio.sleep(LEASE + 0.5)  # longer than the leases of what hangs, which are renewed
            assert await messages(other) == 200
            assert link.taken == 300
            assert dure.publisher.room == 0

        link.let_go.set()
        await until(lambda: all_are(dure, State.QUEUED, 500))
        await until(lambda: dure.publisher.room == 300)
        assert await dure.ledger.next_due() == float("inf")
        await ours.stop()


async def test_a_submission_that_had_no_answer_in_time_is_one_job_when_it_is_made_again(
    settings: Settings, postgres: PostgreSQL
) -> None:
    async with Dure(settings.model_copy(update={"ledger_timeout": 2.0})) as dure:
        await until(lambda: dure.link.connected)
        with frozen(postgres):
            for _ in range(2):
                began = time.monotonic()
                with pytest.raises(LedgerUnavailable):
                    await dure.submit("later.task", force=True, queue=QUEUE, idempotency_key="k")
                assert time.monotonic() - began < 8
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(LedgerUnavailable):
                    job = await dure.submit("later.task", force=True, queue=QUEUE, idempotency_key="k")
                    break
        await until(lambda: _is_queued(dure, job.id))
        assert await dure.ledger.count_jobs(JobFilter()) == 1
        assert await messages(dure) == 1
