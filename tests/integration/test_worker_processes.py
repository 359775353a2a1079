"""`--pool asyncio` with tasks that run in processes, beside its coroutines and threads."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from celery import Celery
from celery.result import AsyncResult

from dure.job import Reason, State
from tests.integration.each_broker import BROKERS, client_of
from tests.integration.process_tasks import MODULE
from tests.integration.worker_harness import DEADLINE, Client, Worker, worker
from tests.processes import alive, children

Start = Callable[..., AbstractContextManager[Worker]]


client = pytest.fixture(params=BROKERS)(client_of)


@pytest.fixture
def start(client: Client, tmp_path: Path) -> Start:
    return lambda *argv, **env: worker(client, tmp_path, "-P", "asyncio", "-I", MODULE, *argv, **env)


class Spins:
    """Jobs that compute until they may end."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client, self.folder = client, folder

    def begin(self, name: str) -> str:
        job = self.client.submit("cpu_spin", str(self.folder), name)
        self.client.event(job, State.STARTED)
        self.client.until(lambda: self.pids(name), "its run")
        return job

    def pids(self, name: str) -> list[int]:
        path = self.folder / name
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def end(self, name: str) -> None:
        (self.folder / f"{name}.end").touch()


@pytest.fixture
def spins(client: Client, tmp_path: Path) -> Spins:
    return Spins(client, tmp_path)


def test_tasks_run_where_they_say(client: Client, start: Start) -> None:
    with start(TEST_PROCESS_TASKS="named_*") as running:
        where = {
            name: client.end(client.submit(name)).result
            for name in ("cpu_where", "named_where", "named_thread", "aio_where")
        }
        parent = running.process.pid
    assert (where["cpu_where"][1], where["named_where"][1]) == (parent, parent)
    assert (where["named_thread"][0], where["aio_where"][0]) == (parent, parent)


def test_a_worker_without_such_tasks_has_no_processes(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-P", "asyncio", "-I", "tests.integration.aio_tasks") as running:
        assert client.end(client.submit("aio_add", 1)).result == 3
        assert client.end(client.submit("where_sync")).result is False
        assert not children(running.process.pid)


def test_coroutines_and_threads_go_on_while_a_process_computes(client: Client, start: Start, spins: Spins) -> None:
    with start():
        jobs = [spins.begin("one"), spins.begin("two")]
        assert client.end(client.submit("aio_add", 1)).result == 3
        assert client.end(client.submit("where_sync")).result is False
        assert not [e for job in jobs for e in client.events(job) if e.state.final]
        spins.end("one")
        spins.end("two")
        assert [client.end(job).result for job in jobs] == ["spun", "spun"]


def test_no_more_of_them_run_than_there_are_processes(client: Client, start: Start, spins: Spins) -> None:
    with start(TEST_PROCESSES="1"):
        first = spins.begin("first")
        second = client.submit("cpu_where")
        assert client.end(client.submit("aio_add", 1)).result == 3
        client.read()
        assert State.STARTED not in [e.state for e in client.events(second)]
        spins.end("first")
        assert client.end(first).result == "spun"
        assert client.end(second).result == [spins.pids("first")[0], client.end(second).result[1]]


def test_it_ends_with_value_error_and_retries(client: Client, start: Start) -> None:
    with start():
        end = client.end(client.submit("cpu_retry"))
        assert (end.result, end.attempt) == (2, 3)
        error = client.end(client.submit("cpu_fail", "no")).error
        assert error is not None
        assert (error.type, error.message) == ("ValueError", "no")


def test_it_has_nothing_of_the_workers_loop(client: Client, start: Start) -> None:
    clean = {"hub": False, "main": True, "wakeup": -1, "own": 1}
    with start("--max-tasks-per-child", "1", TEST_PROCESSES="1") as running:
        assert [client.end(client.submit("cpu_clean")).result for _ in range(3)] == [clean] * 3
        assert client.end(client.submit("cpu_async", 0.01)).result != running.process.pid


def test_what_it_emits_is_told(client: Client, start: Start) -> None:
    with start():
        end = client.end(client.submit("cpu_tell"))
        assert (end.result, end.told is not None and end.told.n) == ("told", 3)


@pytest.mark.parametrize("replaced", [False, True])
def test_it_may_submit_another_job(client: Client, start: Start, replaced: bool) -> None:
    with start("--max-tasks-per-child", "1", TEST_PROCESSES="1"):
        if replaced:
            client.end(client.submit("cpu_where"))
        called = client.end(client.submit("cpu_call", "elsewhere")).result
        client.until(lambda: client.events(called), "what its sender tells")  # no worker consumes that queue
        assert client.depth("elsewhere") == 1


def test_limits_are_kept(client: Client, start: Start, spins: Spins) -> None:
    with start(TEST_PROCESSES="1"):
        assert client.end(client.submit("cpu_soft")).result == "in time"
        assert client.end(client.submit("cpu_async", 60)).state is State.FAILURE
        end = client.end(client.submit("cpu_spin", str(spins.folder), time_limit=3.0))
        assert (end.state, end.reason) == (State.FAILURE, Reason.TIME_LIMIT)
        after = client.end(client.submit("cpu_where")).result
        assert after[0] != spins.pids("spin")[0]
    assert client.depth("celery") == 0


def test_revoking_with_terminate_kills_the_process(client: Client, start: Start, spins: Spins) -> None:
    with start(TEST_PROCESSES="1") as running:
        job = spins.begin("doomed")
        client.control("revoke", task_id=job, terminate=True, signal="SIGTERM")
        assert client.end(job).state is State.REVOKED
        assert client.end(client.submit("cpu_where")).result[0] != spins.pids("doomed")[0]
        assert running.stop() == 0
    assert client.depth("celery") == 0


def test_a_job_that_waits_for_a_process_is_revoked_at_once(client: Client, start: Start, spins: Spins) -> None:
    with start(TEST_PROCESSES="1"):
        running = spins.begin("running")
        waits = client.submit("cpu_spin", str(spins.folder), "waiting")
        client.until(lambda: client.depth("celery") == 0, "its message")
        assert client.end(client.submit("aio_add", 1)).result == 3  # it was taken later
        client.control("revoke", task_id=waits, terminate=True, signal="SIGTERM")
        assert client.end(waits).state is State.REVOKED
        spins.end("running")
        assert client.end(running).result == "spun"
        assert client.end(client.submit("cpu_where")).result[0] == spins.pids("running")[0]
    assert spins.pids("waiting") == []


def test_a_killed_process_ends_its_own_job_only(client: Client, start: Start, spins: Spins) -> None:
    with start() as running:
        jobs = [spins.begin("killed"), spins.begin("other")]
        os.kill(spins.pids("killed")[0], signal.SIGKILL)
        client.until(lambda: len(spins.pids("killed")) == 2, "its second run")
        spins.end("killed")
        spins.end("other")
        assert [client.end(job).attempt for job in jobs] == [2, 1]
        assert len(spins.pids("other")) == 1
        assert running.stop() == 0


def test_a_process_that_leaves_is_a_lost_worker(client: Client, start: Start, tmp_path: Path) -> None:
    with start():
        end = client.end(client.submit("cpu_die_once", str(tmp_path / "marker")))
        assert (end.result, end.attempt) == ("survived", 2)


def test_an_idle_process_that_is_killed_is_replaced(client: Client, start: Start) -> None:
    with start(TEST_PROCESSES="1") as running:
        for _ in range(3):
            idle = client.end(client.submit("cpu_where")).result[0]
            os.kill(idle, signal.SIGKILL)
            assert client.end(client.submit("cpu_where")).state is State.SUCCESS
        assert running.stop() == 0


def test_processes_are_replaced_after_so_many_tasks(client: Client, start: Start) -> None:
    with start("--max-tasks-per-child", "2", TEST_PROCESSES="1"):
        pids = [client.end(client.submit("cpu_where")).result[0] for _ in range(6)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 2]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_warm_shutdown_lets_them_end(client: Client, start: Start, spins: Spins, replaced: bool) -> None:
    with start("--max-tasks-per-child", "1", TEST_PROCESSES="1") as running:
        if replaced:
            client.end(client.submit("cpu_where"))
        job = spins.begin("last")
        running.process.terminate()
        client.until(lambda: b"Warm shutdown" in running.log.read_bytes(), "its shutdown")
        time.sleep(1.0)  # in which a process must not be ended
        spins.end("last")
        assert running.process.wait(DEADLINE) == 0
        end = client.end(job)
        assert (end.result, end.attempt) == ("spun", 1)
    assert client.depth("celery") == 0


def test_a_cold_shutdown_gives_their_messages_back(client: Client, start: Start, spins: Spins) -> None:
    with start() as running:
        job = spins.begin("cut")
        running.process.send_signal(signal.SIGQUIT)
        running.process.wait(DEADLINE)
        pid = spins.pids("cut")[0]
        client.until(lambda: not alive(pid), "its end")
    client.until(lambda: client.depth("celery") == 1, "its message")
    assert not [e for e in client.events(job) if e.state.final]


def test_a_killed_worker_leaves_no_process(client: Client, start: Start, spins: Spins) -> None:
    with start() as running:
        spins.begin("orphan")
        running.kill()
        pid = spins.pids("orphan")[0]
        client.until(lambda: not alive(pid), "its end")


def test_the_lane_is_seen_by_inspect(client: Client, start: Start, spins: Spins) -> None:
    sender = Celery(broker=client.url)
    with start():
        spins.begin("seen")
        (stats,) = sender.control.inspect(timeout=DEADLINE, limit=1).stats().values()
        spins.end("seen")
    lane = stats["pool"]["processes"]
    assert (lane["slots"], lane["running"]) == (2, 1)
    assert spins.pids("seen")[0] in lane["pids"]


def test_processes_are_replaced_while_all_else_is_busy(client: Client, start: Start) -> None:
    with start("--max-tasks-per-child", "1"):
        jobs = []
        for n in range(15):
            jobs += [(client.submit("cpu_tell"), "told"), (client.submit("add", n), n + 2)]
            jobs += [(client.submit("aio_add", i), i + 2) for i in range(20)]
        for job, result in jobs:
            end = client.end(job)
            assert (end.result, end.attempt) == (result, 1)


def test_they_work_under_plain_celery(rabbitmq_url: str, redis_url: str, tmp_path: Path) -> None:
    client, reader = Client(rabbitmq_url), Celery(backend=redis_url)
    pool = {"TEST_POOL": "dure.worker.aio.asyncio:TaskPool", "TEST_RESULTS": redis_url, "TEST_PROCESSES": "1"}
    with worker(client, tmp_path, "--max-tasks-per-child", "1", "-I", MODULE, stock=True, **pool) as running:
        jobs = [client.submit("cpu_where") for _ in range(3)]
        failed = client.submit("cpu_fail", "no")
        client.until(lambda: all(AsyncResult(job, app=reader).ready() for job in [*jobs, failed]), "the results")
        where = [AsyncResult(job, app=reader).result for job in jobs]
        assert AsyncResult(failed, app=reader).state == "FAILURE"
        assert {parent for _, parent in where} == {running.process.pid}
        assert len({pid for pid, _ in where}) == 3
        spinning = Spins(client, tmp_path)
        stopped = client.submit("cpu_spin", str(tmp_path))
        client.until(lambda: spinning.pids("spin"), "its run")
        Celery(broker=rabbitmq_url).control.revoke(stopped, terminate=True)
        client.until(lambda: AsyncResult(stopped, app=reader).state == "REVOKED", "its end")
        assert running.stop() == 0
    client.close()


@pytest.mark.parametrize("task", ["cpu_memory", "thread_memory", "aio_memory"])
def test_a_memory_error_ends_the_job_and_not_the_worker(client: Client, start: Start, task: str) -> None:
    with start() as running:
        error = client.end(client.submit(task)).error
        assert error is not None
        assert (error.type, error.message) == ("MemoryError", "too large")
        assert client.end(client.submit("cpu_where")).state is State.SUCCESS
        assert running.stop() == 0
    assert client.depth("celery") == 0


def test_a_worker_whose_processes_do_not_start_ends(client: Client, start: Start, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    with start(TEST_PROCESSES="1", TEST_BROKEN=str(broken)) as running:
        idle = client.end(client.submit("cpu_where")).result[0]
        broken.touch()
        os.kill(idle, signal.SIGKILL)
        job = client.submit("cpu_where")
        assert running.process.wait(DEADLINE + 100) == 1  # Celery looks for dead ones each 5 s
        assert b"worker_process_init" in running.log.read_bytes()
    client.until(lambda: client.depth("celery") == 1, "its message")
    assert not [e for e in client.events(job) if e.state.final]
