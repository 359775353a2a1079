"""`--max-tasks-per-child` and `--max-memory-per-child` of the asyncio pool: the worker drains and begins anew."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from dure.job import State
from tests.integration.aio_tasks import MODULE
from tests.integration.each_broker import BROKERS, client_of
from tests.integration.worker_harness import DEADLINE, Client, Worker, worker
from tests.services import RabbitMQ

Start = Callable[..., AbstractContextManager[Worker]]


client = pytest.fixture(params=BROKERS)(client_of)


@pytest.fixture
def start(client: Client, tmp_path: Path) -> Start:
    return lambda *argv, **env: worker(client, tmp_path, "-P", "asyncio", "-I", MODULE, *argv, **env)


def begun(running: Worker) -> int:
    """How often the worker of this process was ready."""
    return running.log.read_bytes().count(b" ready.")


def drains(running: Worker) -> bool:
    return b"takes no more jobs" in running.log.read_bytes()


def stopped(client: Client, running: Worker, end: Path) -> int:
    """Its exit code, where a job keeps it until this file is there: a signal between two of its lives would kill it."""
    running.process.terminate()
    client.until(lambda: b"Warm shutdown" in running.log.read_bytes(), "its shutdown")
    end.touch()
    return running.process.wait(DEADLINE)


def test_a_worker_begins_anew_after_so_many_tasks_and_each_runs_once(
    client: Client, start: Start, tmp_path: Path
) -> None:
    with start("-c", "20", "--max-tasks-per-child", "15") as running:
        jobs = [client.submit("aio_nap", 0.05) for _ in range(40)]
        paths = [tmp_path / f"note-{number}" for number in range(40)]
        jobs += [client.submit("note", str(path), 0.01) for path in paths]  # more than there are threads: some wait
        assert {client.end(job).attempt for job in jobs} == {1}
        client.until(lambda: begun(running) >= 3, "a worker that begins anew")
        assert [path.read_text() for path in paths] == ["run\n"] * 40
        last = client.submit("aio_spin", str(tmp_path), "last")
        client.until(lambda: client.events(last)[-1:] and client.events(last)[-1].state is State.STARTED, "its begin")
        assert stopped(client, running, tmp_path / "last.end") == 0
    client.read()
    assert {len([e for e in client.events(job) if e.state is State.STARTED]) for job in jobs} == {1}
    assert client.depth("celery") == 0


def test_what_runs_when_the_limit_is_reached_runs_on_and_can_be_revoked(client: Client, start: Start) -> None:
    with start("-c", "2", "--max-tasks-per-child", "1") as running:
        naps = [client.submit("aio_nap", 2.0), client.submit("aio_nap", 60.0)]
        for job in naps:
            client.event(job, State.STARTED)
        assert client.end(naps[0]).attempt == 1
        client.until(lambda: drains(running), "a worker that drains")
        waits = client.submit("aio_add", 1)
        client.control("revoke", task_id=naps[1])
        assert client.end(naps[1]).state is State.REVOKED
        end = client.end(waits)
        assert (end.result, end.attempt) == (3, 1)
        assert begun(running) >= 2


def test_another_worker_takes_the_jobs_of_one_that_drains(client: Client, start: Start) -> None:
    with start("-c", "2", "-n", "first@h", "--max-tasks-per-child", "1") as first:
        long = client.submit("aio_nap", 60.0)
        client.event(long, State.STARTED)
        client.end(client.submit("aio_add", 1))
        client.until(lambda: drains(first), "a worker that drains")
        with start("-n", "second@h"):
            for job in [client.submit("aio_add", n) for n in range(10)]:
                assert client.end(job).worker == "second@h"
        assert begun(first) == 1


def test_a_worker_that_has_grown_begins_anew(client: Client, start: Start) -> None:
    with start("--max-memory-per-child", "400000") as running:
        assert client.end(client.submit("aio_add", 1)).result == 3
        client.end(client.submit("aio_grow", 500))
        client.until(lambda: begun(running) == 2, "a worker that begins anew")
        assert client.end(client.submit("aio_add", 1)).result == 3
        assert running.stop() == 0
        assert begun(running) == 2


def test_a_worker_that_is_told_to_stop_while_it_drains_does_not_begin_anew(
    client: Client, start: Start, tmp_path: Path
) -> None:
    with start("-c", "2", "--max-tasks-per-child", "1") as running:
        spin = client.submit("aio_spin", str(tmp_path), "spin")
        client.event(spin, State.STARTED)
        client.end(client.submit("aio_add", 1))
        client.until(lambda: drains(running), "a worker that drains")
        assert stopped(client, running, tmp_path / "spin.end") == 0
        assert client.end(spin).attempt == 1
        assert begun(running) == 1


def test_a_connection_that_is_lost_meanwhile_runs_nothing_twice(
    rabbitmq: RabbitMQ, rabbitmq_url: str, tmp_path: Path
) -> None:
    client = Client(rabbitmq_url)
    with worker(client, tmp_path, "-P", "asyncio", "-I", MODULE, "-c", "2", "--max-tasks-per-child", "1") as running:
        spin = client.submit("aio_spin", str(tmp_path), "spin")
        client.event(spin, State.STARTED)
        client.end(client.submit("aio_add", 1))
        client.until(lambda: drains(running), "a worker that drains")
        rabbitmq.ctl("close_all_connections", "--vhost", client.url.rpartition("/")[2], "test")
        client.until(lambda: b"takes the new delivery over" in running.log.read_bytes(), "the new delivery")
        (tmp_path / "spin.end").touch()
        assert client.end(spin).attempt == 1
        client.until(lambda: begun(running) == 2, "a worker that begins anew")
        assert client.end(client.submit("aio_add", 1)).result == 3
        client.read()
        assert len([e for e in client.events(spin) if e.state is State.STARTED]) == 1
    client.close()


def test_a_worker_of_plain_celery_begins_anew_too(rabbitmq_url: str, tmp_path: Path) -> None:
    client = Client(rabbitmq_url)
    argv = ("-I", MODULE, "--max-tasks-per-child", "2", "--purge")
    with worker(client, tmp_path, *argv, stock=True, TEST_POOL="dure.worker.aio.asyncio:TaskPool") as running:
        paths = [tmp_path / f"note-{number}" for number in range(6)]
        for generation in (1, 2, 3):
            client.until(lambda generation=generation: begun(running) == generation, "a worker that begins anew")
            client.submit("note", str(paths[2 * generation - 2]))
            client.submit("note", str(paths[2 * generation - 1]))
        client.until(lambda: begun(running) == 4, "a worker that begins anew")
        os.kill(running.process.pid, signal.SIGTERM)
        assert running.process.wait(20) == 0
    assert [path.read_text() for path in paths] == ["run\n"] * 6
    client.close()
