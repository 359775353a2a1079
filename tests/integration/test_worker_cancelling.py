"""A job that was cancelled while it runs in a thread ends at what it tells next."""

import asyncio
import itertools
import time
from contextlib import suppress
from pathlib import Path

import pytest

import dure
from dure.job import Reason, State
from tests.integration.live_tasks import MODULE, Audience, task
from tests.integration.test_worker_revocations import revoke, store_of
from tests.integration.worker_harness import worker


@task(autoretry_for=(Exception,), max_retries=5, default_retry_delay=0)
def tell_for_ever(by: str, ended: str) -> None:
    """Swallows every error, and lets go of what it holds."""
    with Path(ended).open("a") as file:
        try:
            for n in itertools.count():
                with suppress(Exception):
                    dure.emit(n) if by == "emit" else dure.progress(n)
                time.sleep(0.01)
        finally:
            file.write("let go\n")


@task
def tell_for_ever_in_coroutines(ended: str) -> None:
    async def speak() -> None:
        try:
            for n in itertools.count():
                dure.emit(n)
                await asyncio.sleep(0.01)
        finally:
            Path(ended).write_text("let go\n")

    async def both() -> None:
        await asyncio.gather(speak(), asyncio.sleep(3600))

    asyncio.run(both())


@task
def tell_once(start: str) -> str:
    while not Path(start).exists():
        time.sleep(0.01)
    return "whole"


THIS = f"{MODULE},{__name__}"


@pytest.mark.parametrize(
    ("name", "given"),
    [("tell_for_ever", ["emit"]), ("tell_for_ever", ["progress"]), ("tell_for_ever_in_coroutines", [])],
)
def test_it_ends_where_it_tells_next_and_is_not_tried_again(
    name: str, given: list[str], rabbitmq_url: str, tmp_path: Path
) -> None:
    client = Audience(rabbitmq_url)
    with worker(client, tmp_path, "-c", "1", "-I", THIS) as running:
        job = client.submit(name, *given, str(tmp_path / "ended"))
        client.until(lambda: client.told(job), "its first words")
        revoke(client, job, terminate=True)
        end = client.end(job)
        assert (end.state, end.reason, end.attempt) == (State.REVOKED, Reason.TERMINATED, 1)
        assert (tmp_path / "ended").read_text() == "let go\n"
        assert client.end(client.submit("noop")).state is State.SUCCESS
        assert running.stop() == 0
    assert client.depth("celery") == 0
    client.close()


def test_it_ends_on_the_embedded_broker_too(tmp_path: Path) -> None:
    client = Audience(f"dure://{tmp_path}/broker.db")
    store = store_of(client.connection)
    with worker(client, tmp_path, "-c", "1", "-I", THIS):
        job = client.submit("tell_for_ever", "emit", str(tmp_path / "ended"))
        client.until(lambda: client.told(job), "its first words")
        store.revoke([job], terminate=True)
        assert client.end(job).reason is Reason.TERMINATED
        assert (tmp_path / "ended").read_text() == "let go\n"
    client.close()


def test_a_job_that_tells_nothing_runs_to_its_end_and_leaves_the_next_alone(rabbitmq_url: str, tmp_path: Path) -> None:
    client = Audience(rabbitmq_url)
    with worker(client, tmp_path, "-c", "1", "-I", THIS) as running:
        start = tmp_path / "start"
        job = client.submit("tell_once", str(start))
        client.event(job, State.STARTED)
        revoke(client, job, terminate=True)
        client.until(lambda: b"cannot stop a job that runs" in running.log.read_bytes(), "the worker to be told")
        start.touch()
        assert client.end(job).result == "whole"
        assert client.output(client.submit("talk", 2)) == [{"n": 0}, {"n": 1}]
    client.close()
