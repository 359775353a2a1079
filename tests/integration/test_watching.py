"""Feeds of real jobs: first what was, then what happens, each once and in order, from wherever a reader goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dure import Dure, FeedEvent, FeedKind, JobFailed, JobFilter, State, SyncDure, UnknownJob, UnknownWorkflow
from dure.client.job_feed import JobFeed
from dure.entry import Entry, EntryKind, Told
from dure.errors import InvalidCursor, InvalidSubmission
from dure.gateway.runtime import running
from tests.acceptance.site import Site, site
from tests.services import RabbitMQ
from tests.services.modes import servers_of

PATIENCE = 30.0
INCLUDE = "tests.acceptance.live_tasks"


@pytest.fixture(scope="module", params=["embedded", "production"])
def place(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A broker, a ledger, one worker of ours, and a stock one on the queue `stock`."""
    with site(**servers_of(request)) as place:
        place.start_worker("ours", "-I", INCLUDE)
        place.start_worker("stock", "-Q", "stock", "-E", "-I", f"{INCLUDE},dure.worker.live.stock", stock=True)
        place.await_worker("ours")
        place.await_worker("stock")
        yield place


@pytest.fixture
async def client(place: Site) -> AsyncIterator[Dure]:
    """With its services, once the tasks are known."""
    async with running(place.settings) as (dure, _):

        async def known() -> bool:
            return await dure.catalogue.find("live.talk") is not None

        await until(known)
        yield dure


@pytest.fixture
async def other(place: Site, client: Dure) -> AsyncIterator[Dure]:
    """One without services, as in another process."""
    async with Dure(place.settings) as other:
        yield other


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            if found := await condition():
                return found
            await asyncio.sleep(0.02)


async def whole(events: AsyncIterator[FeedEvent]) -> list[FeedEvent]:
    async with asyncio.timeout(PATIENCE):
        return [event async for event in events]


async def first(events: AsyncIterator[FeedEvent], count: int) -> list[FeedEvent]:
    """Up to this many chunks of output."""
    got: list[FeedEvent] = []
    async with asyncio.timeout(PATIENCE):
        async for event in events:
            got.append(event)
            if len(chunks(got)) == count:
                return got
    raise AssertionError(f"the feed ended with {got}")


def chunks(events: list[FeedEvent]) -> list[Any]:
    return [event.data["chunk"] for event in events if event.kind is FeedKind.OUTPUT]


def kinds(events: list[FeedEvent]) -> list[str]:
    return [event.kind.value for event in events if event.kind is not FeedKind.STATE]


@pytest.mark.parametrize("queue", ["celery", "stock"])
async def test_a_feed_tells_of_a_job_from_its_beginning_to_its_result(client: Dure, tmp_path: Path, queue: str) -> None:
    go = tmp_path / "go"
    job = await client.submit("live.talk", 40, str(go), 10, queue=queue)
    events = client.job_events(job.id)
    before = await first(events, 10)
    go.touch()
    got = before + await whole(events)
    assert got[0].kind is FeedKind.STATE
    assert chunks(got) == list(range(40))
    assert kinds(got) == ["output"] * 40 + ["result"]
    assert (got[-1].data["state"], got[-1].data["result"]) == ("SUCCESS", "said")
    assert [event.data["state"] for event in got if event.kind is FeedKind.STATE][-1] == "STARTED"
    assert {event.job for event in got} == {event.data["job"] for event in got} == {job.id}


async def test_history_is_told_again_from_wherever_a_reader_was(client: Dure) -> None:
    job = await client.submit("live.steps", 5)
    got = await whole(client.job_events(job.id))
    await until(lambda: _is_recorded(client, job.id))  # the end is pushed, and may be told before that
    assert kinds(got).count("log") == 5
    assert {"level": "INFO", "logger": "shop.live", "message": "at step 1"}.items() <= next(
        event.data for event in got if event.kind is FeedKind.LOG
    ).items()
    again = await whole(client.job_events(job.id))
    told = [event for event in got if event.kind is not FeedKind.STATE]
    assert [event.data for event in again] == [event.data for event in told]
    for n, event in enumerate(got):
        rest = [each.data for each in got[n + 1 :] if each.kind is not FeedKind.STATE]
        assert [each.data for each in await whole(client.job_events(job.id, after=event.id))] == rest


async def _is_recorded(client: Dure, job_id: str) -> bool:
    return (await client.job(job_id)).state.final


async def test_a_reader_goes_on_in_another_process_without_a_gap_or_a_repeat(
    client: Dure, other: Dure, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    job = await client.submit("live.talk", 300, str(go), 150)
    got = await first(client.job_events(job.id), 77)
    beginning = len(got)
    going_on = other.job_events(job.id, after=got[-1].id)
    got += await first(going_on, 150 - 77)
    go.touch()
    got += await first(going_on, 50)
    await going_on.aclose()  # type: ignore[attr-defined]
    got += await whole(client.job_events(job.id, after=got[-1].id))
    assert len(got) > beginning
    assert chunks(got) == list(range(300))
    assert kinds(got)[-1] == "result"


async def test_each_attempts_output_comes_once_in_the_order_of_the_attempts(client: Dure) -> None:
    job = await client.submit("live.stumble", 3, 2)
    got = await whole(client.job_events(job.id))
    assert chunks(got) == [[attempt, n] for attempt in range(3) for n in range(3)]
    assert got[-1].data["attempt"] == 3


async def test_the_output_of_a_handle_is_its_chunks_and_a_failure_is_raised_behind_them(client: Dure) -> None:
    job = await client.submit("live.talk", 3)
    assert [chunk async for chunk in job.output()] == [0, 1, 2]
    broken = await client.submit("live.break", 3)
    output = broken.output()
    assert [await anext(output) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(JobFailed, match="broken"):
        await anext(output)


async def test_threads_read_feeds_too(place: Site, client: Dure) -> None:
    def read() -> tuple[list[Any], list[str]]:
        with SyncDure(place.settings) as dure:
            job = dure.submit("live.talk", 3)
            got = list(job.output()), [event.kind.value for event in dure.job_events(job.id)]
            output = dure.submit("live.break", 1).output()
            assert next(output) == 0
            with pytest.raises(JobFailed):
                next(output)
            with pytest.raises(UnknownJob):
                next(dure.job_events("nobody"))
            for _ in dure.events(JobFilter(), after="0"):
                break
            return got

    assert await asyncio.to_thread(read) == ([0, 1, 2], ["output"] * 3 + ["result"])


async def test_many_readers_of_one_job_get_the_same(client: Dure, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = await client.submit("live.talk", 60, str(go), 20)
    readers = [asyncio.create_task(whole(client.job_events(job.id))) for _ in range(20)]
    await first(client.job_events(job.id), 20)
    go.touch()
    assert [chunks(got) for got in await asyncio.gather(*readers)] == [list(range(60))] * 20


async def test_a_reader_that_stops_reading_is_bounded_and_misses_nothing(client: Dure, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = await client.submit("live.talk", 3000, str(go), 1)
    feed = await client.watching.open_job(job.id)
    got = await feed.batch()
    body = "x" * 2000
    for n in range(1, 1500):  # more than its mailbox holds; nothing of it is in the ledger
        entry = Entry(n=n + 10_000, at=time.time(), kind=EntryKind.OUTPUT, body=body)
        feed.push(Told(job_id=job.id, run=1, entries=(entry,)), 2000)
    assert feed._mail._bytes <= 1_048_576
    await feed.close()
    events = client.job_events(job.id)
    got = await first(events, 1)
    go.touch()
    await job.wait(PATIENCE)
    got += await whole(events)
    assert chunks(got) == list(range(3000))


@pytest.mark.parametrize("place", ["production"], indirect=True)  # the embedded broker has no connection to cut
async def test_a_cut_connection_is_made_up_for(
    rabbitmq: RabbitMQ, place: Site, client: Dure, other: Dure, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    job = await client.submit("live.talk", 200, str(go), 20)
    events = other.job_events(job.id)
    got = await first(events, 20)
    for _ in range(2):
        vhost = place.environ["DURE_BROKER_URL"].rpartition("/")[2]
        await asyncio.to_thread(rabbitmq.ctl, "close_all_connections", "--vhost", vhost, "test")
        go.touch()
    got += await whole(events)
    assert chunks(got) == list(range(200))
    assert kinds(got)[-1] == "result"


async def test_a_cancelled_job_has_its_result_at_once(client: Dure) -> None:
    job = await client.submit("live.talk", 1, delay=600)
    events = client.job_events(job.id)
    assert (await anext(events)).data["state"] == "SCHEDULED"
    began = time.monotonic()
    await client.cancel(job.id)
    (end,) = await whole(events)
    assert (end.kind, end.data["state"], end.data["reason"]) == (FeedKind.RESULT, "REVOKED", "revoked")
    assert time.monotonic() - began < 8, "it was pushed, not found by looking"


async def test_a_workflow_tells_of_itself_and_of_its_nodes(client: Dure, other: Dure, tmp_path: Path) -> None:
    go = tmp_path / "go"
    spec = {
        "nodes": {
            "a": {"task": "live.talk", "args": [30, str(go), 10]},
            "b": {"task": "live.steps", "args": [2], "needs": ["a"]},
        }
    }
    flow = await client.submit_workflow(spec)
    events = flow.events()
    got = await first(events, 10)
    going_on = other.workflow_events(flow.id, after=got[-1].id)
    go.touch()
    got += await whole(going_on)
    assert chunks(got) == [*range(30), {"step": 1}, {"step": 2}]
    assert [event.data["node"] for event in got if event.kind is FeedKind.OUTPUT] == ["a"] * 30 + ["b"] * 2
    states = [(event.data["node"], event.data["state"]) for event in got if event.kind is FeedKind.STATE]
    assert [state for node, state in states if node == "b"][-1] == "SUCCESS"
    assert states.index(("a", "SUCCESS")) < states.index(("b", "SUCCESS"))
    assert (got[-1].kind, got[-1].data["state"]) == (FeedKind.RESULT, "SUCCESS")
    (over,) = [event for event in got if event.kind is FeedKind.WORKFLOW and event.data["state"] == "SUCCESS"]
    assert over.data["progress"] == {"done": 2, "total": 2}
    assert len({event.id for event in got}) == len(got)
    again = await whole(client.workflow_events(flow.id))
    for n in range(0, len(again), 7):
        rest = await whole(client.workflow_events(flow.id, after=again[n].id))
        assert [event.id for event in rest] == [event.id for event in again[n + 1 :]]


async def test_a_failed_workflows_result_says_what_failed(client: Dure) -> None:
    flow = await client.submit_workflow({"chain": [{"task": "live.break", "args": [1]}, {"task": "shop.echo"}]})
    got = await whole(flow.events())
    end = got[-1]
    assert (end.kind, end.data["state"], end.data["error"]["message"]) == (FeedKind.RESULT, "FAILURE", "broken")
    assert await whole(flow.events(after=end.id)) == []


@pytest.mark.parametrize("queue", ["celery", "stock"])
async def test_a_filter_tells_of_all_its_jobs_and_of_no_others(client: Dure, queue: str) -> None:
    events = client.events(JobFilter(task="live.talk", queue=queue))
    feed = asyncio.create_task(_ends(events, 2))
    await until(lambda: _true(client.watching._bound))
    others = [await client.submit("live.steps", 1, queue=queue)]
    jobs = [await client.submit("live.talk", 2, queue=queue) for _ in range(2)]
    got = await asyncio.wait_for(feed, PATIENCE)
    assert {event.job for event in got} == {job.id for job in jobs}
    for job in jobs:
        states = [event.data["state"] for event in got if event.job == job.id and event.kind is FeedKind.STATE]
        assert states[-1] == "SUCCESS"
        assert len(states) == len(set(states))
        assert chunks([event for event in got if event.job == job.id]) == [0, 1]
    await others[0].wait(PATIENCE)
    after = f"{got[0].data['at'] * 1000 - 1:.0f}"
    missing = {job.id for job in jobs}
    async with asyncio.timeout(PATIENCE):
        async for event in client.events(JobFilter(task="live.talk"), after=after):
            missing.discard(event.job or "")
            if not missing:
                break


async def _true(found: Any) -> bool:
    return bool(found)


async def _ends(events: AsyncIterator[FeedEvent], count: int) -> list[FeedEvent]:
    got: list[FeedEvent] = []
    async for event in events:
        got.append(event)
        if sum(State(e.data["state"]).final for e in got if e.kind is FeedKind.STATE) == count:
            break
    return got


async def test_what_nobody_knows_is_told_at_the_first_step(client: Dure) -> None:
    job = await client.submit("live.talk", 1)
    for events, error in (
        (client.job_events("nobody"), UnknownJob),
        (client.job_events("\x00"), UnknownJob),
        (client.job_events(job.id, after="x"), InvalidCursor),
        (client.workflow_events(job.id), UnknownWorkflow),
        (client.workflow_events(job.id, after="1.x"), InvalidCursor),
        (client.events(JobFilter(), after="-1"), InvalidCursor),
        (client.events(JobFilter(worker="w")), InvalidSubmission),
    ):
        with pytest.raises(error):
            await anext(events)


async def test_nothing_is_bound_when_nobody_watches_any_more(client: Dure, tmp_path: Path) -> None:
    job = await client.submit("live.talk", 2, str(tmp_path / "go"), 1)
    feeds: list[JobFeed] = [await client.watching.open_job(job.id) for _ in range(3)]
    assert len(client.watching._bound) == 1
    for feed in feeds:
        await feed.close()
    (tmp_path / "go").touch()

    async def unbound() -> bool:
        return not client.watching._bound

    await until(unbound)
    assert not client.watching._sinks
