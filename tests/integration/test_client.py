"""The client in this process, with its services, and workers in theirs: embedded and in production."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from kombu import Connection
from msgspec import structs

import dure.broker  # noqa: F401 - teaches kombu dure://
from dure import Dure, InvalidSubmission, JobFailed, LedgerUnavailable, ResultTimeout, State, Submission, UnknownTask
from dure.client.submission import Draft
from dure.errors import IdempotencyConflict, JobEnded, UnknownJob
from dure.gateway.runtime import running
from dure.ledger import JobFilter
from dure.settings import Settings
from tests.acceptance import tasks as shop
from tests.services import PostgreSQL

PATIENCE = 20.0


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            if found := await condition():
                return found
            await asyncio.sleep(0.02)


async def becomes(dure: Dure, job_id: str, *states: State) -> Any:
    async def look() -> Any:
        job = await dure.job(job_id)
        return job if job.state in states else None

    return await until(look)


async def test_a_job_is_submitted_by_name_and_its_result_awaited(client: Dure) -> None:
    job = await client.submit("shop.add", 2, y=3, tags=["a"])
    assert (job.job.state, job.job.args, job.job.kwargs, job.job.tags) == (State.ACCEPTED, [2], {"y": 3}, ("a",))
    assert await job.result(timeout=PATIENCE) == 5
    assert job.job.state is State.SUCCESS
    assert await job.result(timeout=0) == 5
    record = await becomes(client, job.id, State.SUCCESS)
    assert (record.result, record.worker, record.attempts) == (5, "ours@here", 1)


async def test_a_job_is_submitted_by_its_task_object(client: Dure) -> None:
    job = await client.submit(shop.add, 2, 3)
    assert await job.result(timeout=PATIENCE) == 5


async def test_python_values_are_turned_to_json_on_their_way(client: Dure) -> None:
    moment = datetime(2027, 1, 1, tzinfo=UTC)
    job = await client.submit("shop.echo", {"at": moment, "set": {1}, "bytes": b"x", "tuple": (1, 2)})
    assert await job.result(timeout=PATIENCE) == {
        "at": "2027-01-01T00:00:00Z",
        "set": [1],
        "bytes": "x",
        "tuple": [1, 2],
    }


@pytest.mark.parametrize(
    ("value", "within"),
    [
        (float("nan"), ()),
        (float("inf"), ()),
        (object(), ()),
        ("\ud800", ()),
        ({"a": [0, float("nan")]}, ("a", 1)),
    ],
)
async def test_a_value_that_is_no_json_is_refused_by_its_place(
    client: Dure, value: Any, within: tuple[str | int, ...]
) -> None:
    for args, kwargs, place in (([value], {}, ("args", 0)), ([], {"value": value}, ("kwargs", "value"))):
        with pytest.raises(InvalidSubmission) as caught:
            await client.submit("shop.echo", *args, **kwargs)
        assert [error.loc for error in caught.value.errors] == [(*place, *within)]


async def test_many_jobs_are_submitted_as_one(client: Dure) -> None:
    handles = await client.submit_many(Submission(task="shop.add", args=[n, n]) for n in range(20))
    assert await asyncio.gather(*(handle.result(PATIENCE) for handle in handles)) == [2 * n for n in range(20)]
    assert await client.submit_many([]) == []


async def test_of_many_jobs_one_wrong_one_keeps_all_from_being_submitted(client: Dure) -> None:
    tag = uuid4().hex
    good = Submission(task="shop.add", args=[1], options={"tags": [tag]})
    for bad in (Submission(task="shop.add", args=["one"]), Submission(task="shop.add", args=[1], options={"x": 1})):
        with pytest.raises(InvalidSubmission):
            await client.submit_many([good, bad])
    with pytest.raises(UnknownTask):
        await client.submit_many([good, Submission(task="shop.ad")])
    assert (await client.ledger.jobs(JobFilter(tag=tag))).jobs == ()


@pytest.mark.parametrize("value", [object(), "\ud800"])
async def test_a_submission_that_cannot_be_written_harms_no_other_of_the_same_moment(client: Dure, value: Any) -> None:
    bad, good = await asyncio.gather(
        client.submit_many([Submission(task="shop.echo", args=[value])]),
        client.submit("shop.add", 1),
        return_exceptions=True,
    )
    assert isinstance(bad, InvalidSubmission)
    assert not isinstance(good, BaseException)


async def test_an_unknown_task_is_told_with_its_near_names_and_can_be_forced(client: Dure) -> None:
    with pytest.raises(UnknownTask) as caught:
        await client.submit("shop.ad")
    assert caught.value.name == "shop.ad"
    assert "shop.add" in caught.value.near
    job = await client.submit("shop.ad", force=True, queue="nobody")
    assert (await becomes(client, job.id, State.QUEUED)).task == "shop.ad"


async def test_waiting_ends_when_its_time_is_over(client: Dure) -> None:
    job = await client.submit("shop.add", 1, delay=60)
    for ask in (job.wait, job.result):
        began = time.monotonic()
        with pytest.raises(ResultTimeout) as caught:
            await ask(timeout=0.2)
        assert 0.15 < time.monotonic() - began < 10  # a second of it may be spent on beginning to listen
        assert (caught.value.job_id, caught.value.timeout) == (job.id, 0.2)
        assert isinstance(caught.value, TimeoutError)


async def test_a_failed_job_raises_with_its_whole_record(client: Dure) -> None:
    job = await client.submit("shop.fail", "no good")
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=PATIENCE)
    error = caught.value.job.error
    assert error is not None
    assert (error.type.rpartition(".")[2], error.message) == ("ValueError", "no good")
    assert "raise ValueError" in (error.traceback or "")
    assert (caught.value.job.state, caught.value.job.reason) == (State.FAILURE, "error")
    assert job.id in str(caught.value)
    assert (await job.wait()).state is State.FAILURE


async def test_a_delayed_job_is_published_when_it_is_due(client: Dure) -> None:
    began = time.time()
    jobs = [
        await client.submit("shop.add", 1, delay=2),
        await client.submit("shop.add", 1, eta=datetime.now(UTC) + timedelta(seconds=2)),
    ]
    assert {job.job.state for job in jobs} == {State.SCHEDULED}
    for job in jobs:
        assert await job.result(timeout=PATIENCE) == 3
        assert (await becomes(client, job.id, State.SUCCESS)).started_at >= began + 2


async def test_an_eta_in_the_past_is_now(client: Dure) -> None:
    job = await client.submit("shop.add", 1, eta=datetime(2020, 1, 1, tzinfo=UTC))
    assert job.job.state is State.ACCEPTED
    assert await job.result(timeout=PATIENCE) == 3


async def test_a_job_whose_queue_was_deleted_makes_it_again(client: Dure) -> None:
    queue = f"gone-{uuid4().hex[:6]}"
    first = await client.submit("shop.add", 1, queue=queue)
    await becomes(client, first.id, State.QUEUED)
    with Connection(client.settings.broker) as connection, connection.channel() as channel:
        channel.queue_delete(queue)
    second = await client.submit("shop.add", 1, queue=queue)
    await becomes(client, second.id, State.QUEUED)
    (depth,) = await client.link.queues([queue])
    assert depth.messages == 1


async def test_the_result_of_a_stock_worker_is_awaited_too(client: Dure) -> None:
    job = await client.submit("shop.echo", {"a": [1, None]}, queue="stock")
    assert await job.result(timeout=PATIENCE) == {"a": [1, None]}
    record = await becomes(client, job.id, State.SUCCESS)
    assert (record.worker, record.result, record.result_repr) == ("stock@here", {"a": [1, None]}, None)

    failing = await client.submit("shop.fail", "it's 'no good'", queue="stock")
    with pytest.raises(JobFailed) as caught:
        await failing.result(timeout=PATIENCE)
    assert caught.value.job.error is not None
    assert caught.value.job.error.message == "it's 'no good'"


@pytest.mark.parametrize("queue", ["celery", "stock"])
async def test_a_job_of_plain_celery_appears_in_history(client: Dure, queue: str) -> None:
    plain = Celery("plain", broker=client.settings.broker, set_as_current=False)
    sent = await asyncio.to_thread(plain.send_task, "shop.add", (4,), {"y": 5}, queue=queue)
    record = await until(lambda: _ended(client, sent.id))
    assert (record.state, record.result, record.origin) == (State.SUCCESS, 9, "celery")
    assert (record.task, record.args_repr) == ("shop.add", "(4,)")
    if queue == "celery":  # a stock worker does not tell its queue
        assert record.queue == queue
    assert await (await client.handle(sent.id)).result(timeout=PATIENCE) == 9
    plain.close()


async def _ended(client: Dure, job_id: str) -> Any:
    try:
        job = await client.job(job_id)
    except UnknownJob:
        return None
    return job if job.state.final else None


@pytest.mark.parametrize("job_id", ["nobody", "", "\x00", "x" * 10_000, "../x", "\ud800"])
async def test_an_id_that_nobody_submitted_is_unknown(client: Dure, job_id: str) -> None:
    with pytest.raises(UnknownJob):
        await client.job(job_id)
    with pytest.raises(UnknownJob):
        await client.handle(job_id)


async def test_many_submissions_at_once_share_transactions(client: Dure) -> None:
    batches = []
    accept = client.ledger.accept

    async def counted(batch: Any) -> None:
        batches.append(len(batch))
        await accept(batch)

    client.ledger.accept = counted  # type: ignore[method-assign]
    await asyncio.gather(*(client.submit("shop.add", n, delay=600) for n in range(300)))
    assert sum(batches) == 300
    assert len(batches) < 30


# Keys, and cancelling.


async def test_a_submission_made_again_with_its_key_is_the_same_job(client: Dure) -> None:
    key, more = uuid4().hex, {"delay": 600, "idempotency_key": uuid4().hex}
    handles = await asyncio.gather(*(client.submit("shop.add", 1, y=2, **more) for _ in range(10)))
    assert len({handle.id for handle in handles}) == 1
    many = [Submission(task="shop.add", args=[n], options={"delay": 600}) for n in range(3)]
    first, again = [await client.submit_many(many, idempotency_key=key) for _ in range(2)]
    assert [handle.id for handle in first] == [handle.id for handle in again]
    with pytest.raises(IdempotencyConflict):
        await client.submit_many(many[:2], idempotency_key=key)
    for bad in ("", "x" * 256, "a\x00"):
        with pytest.raises(InvalidSubmission):
            await client.submit("shop.add", 1, idempotency_key=bad)


async def test_while_a_job_holds_a_unique_key_it_is_the_answer(client: Dure) -> None:
    key = uuid4().hex
    first = await client.submit("shop.add", 1, unique_key=key)
    assert await first.result(timeout=PATIENCE) == 3
    await becomes(client, first.id, State.SUCCESS)
    handles = await asyncio.gather(*(client.submit("shop.add", n, unique_key=key, delay=600) for n in range(10)))
    (second,) = {handle.id for handle in handles}
    assert second != first.id
    assert (await client.job(second)).unique_key == key


async def test_a_job_that_nobody_has_begun_is_cancelled_for_good(client: Dure) -> None:
    later = await client.submit("shop.add", 1, delay=600)
    waiting = await client.submit("shop.add", 1, queue=f"nobody-{uuid4().hex[:6]}")
    await becomes(client, waiting.id, State.QUEUED)
    for handle in (later, waiting):
        cancelled = await client.cancel(handle.id)
        assert (cancelled.state, cancelled.reason) == (State.REVOKED, "revoked")
        assert await client.cancel(handle.id) == cancelled == await client.job(handle.id)
    ended = await client.submit("shop.add", 1)
    await ended.result(timeout=PATIENCE)
    await becomes(client, ended.id, State.SUCCESS)
    with pytest.raises(JobEnded):
        await client.cancel(ended.id)
    with pytest.raises(UnknownJob):
        await client.cancel("nobody")


# A broker that is away.


@asynccontextmanager
async def away(folder: Any) -> AsyncIterator[tuple[Dure, Any]]:
    settings = Settings(_env_file=None, home=folder, broker_url="amqp://guest:guest@127.0.0.1:9/")
    async with running(settings) as opened:
        yield opened


async def test_jobs_are_accepted_while_the_broker_is_away_and_the_loop_goes_on(tmp_path: Any) -> None:
    async with away(tmp_path) as (dure, _):
        longest, ticks = 0.0, 0

        async def tick() -> None:
            nonlocal longest, ticks
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.001)
                longest, ticks = max(longest, time.monotonic() - before), ticks + 1

        ticking = asyncio.create_task(tick())
        began = time.monotonic()
        for _ in range(30):
            job = await dure.submit("later.task", force=True)
            assert job.job.state is State.ACCEPTED
        elapsed = time.monotonic() - began
        ticking.cancel()
        assert elapsed < 10
        assert longest < 2
        assert ticks > 10
        with pytest.raises(ResultTimeout):
            await job.wait(timeout=0.3)


async def test_a_queue_that_the_broker_refuses_keeps_no_other_job_from_being_published(
    rabbitmq_url: str, tmp_path: Any
) -> None:
    async with Dure(Settings(_env_file=None, home=tmp_path, broker_url=rabbitmq_url)) as dure:
        jobs = [Submission(task="later.task", force=True, options={"queue": queue}) for queue in ("amq.no", "q")]
        bad, good = await dure.submit_many(jobs)
        async with asyncio.timeout(10):
            await becomes(dure, good.id, State.QUEUED)
            refused = await becomes(dure, bad.id, State.FAILURE)
        assert refused.reason == "rejected"


async def test_a_job_that_no_message_can_tell_of_ends_and_keeps_no_other_back(tmp_path: Any) -> None:
    async with Dure(Settings(_env_file=None, home=tmp_path)) as dure:
        first, second = [await dure.draft(Submission(task="later.task", force=True)) for _ in range(2)]
        beyond = Draft(job=structs.replace(first.job, expires=1e12))  # what no calendar has
        bad, good = (await dure.accept([beyond, second])).jobs
        async with asyncio.timeout(10):
            await becomes(dure, good.id, State.QUEUED)
            ended = await becomes(dure, bad.id, State.FAILURE)
        assert ended.reason == "rejected"


async def test_a_ledger_that_is_away_refuses_and_nothing_is_submitted(postgres: PostgreSQL, tmp_path: Any) -> None:
    url = postgres.start().database()
    async with Dure(Settings(_env_file=None, home=tmp_path, ledger_url=url)) as dure:
        postgres.forget(url)
        with pytest.raises(LedgerUnavailable):
            await dure.submit("later.task", force=True)
        (depth,) = await dure.link.queues(["celery"])
        assert depth.messages == 0


async def test_a_client_without_its_ledger_does_not_open(tmp_path: Any) -> None:
    settings = Settings(_env_file=None, home=tmp_path, ledger_url="postgresql://nobody@127.0.0.1:9/none")
    with pytest.raises(LedgerUnavailable):
        async with Dure(settings):
            pass


async def test_what_was_accepted_last_is_published_before_the_client_ends(tmp_path: Any) -> None:
    settings = Settings(_env_file=None, home=tmp_path)
    async with Dure(settings) as dure:
        job = await dure.submit("later.task", force=True)
    async with Dure(settings) as dure:
        assert (await dure.job(job.id)).state is State.QUEUED
        with pytest.raises(LedgerUnavailable):
            await _after_the_end(settings)


async def _after_the_end(settings: Settings) -> None:
    async with Dure(settings) as dure:
        pass
    await dure.submit("later.task", force=True)
