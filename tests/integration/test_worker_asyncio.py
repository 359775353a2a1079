"""`--pool asyncio`: coroutines on the consumer's loop, and sync tasks in threads beside them."""

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult

from dure.job import Reason, State
from tests.integration.aio_tasks import MODULE
from tests.integration.each_broker import BROKERS, client_of
from tests.integration.worker_harness import DEADLINE, Client, Worker, app_name, worker
from tests.services import RabbitMQ, Redis

Start = Callable[..., AbstractContextManager[Worker]]


client = pytest.fixture(params=BROKERS)(client_of)


@pytest.fixture
def start(client: Client, tmp_path: Path) -> Start:
    return lambda *argv, **env: worker(client, tmp_path, "-P", "asyncio", "-I", MODULE, *argv, **env)


def test_a_coroutine_ends_with_its_value_or_error(client: Client, start: Start) -> None:
    with start():
        assert client.end(client.submit("aio_add", 1)).result == 3
        end = client.end(client.submit("aio_fail", "no"))
    assert end.error is not None
    assert (end.state, end.error.type, end.error.message) == (State.FAILURE, "ValueError", "no")


def test_coroutines_run_at_once_and_wait_for_one_another(client: Client, start: Start) -> None:
    with start("-c", "300"):
        jobs = [client.submit("aio_meet", 200) for _ in range(200)]
        assert {client.end(job).result for job in jobs} == {200}


def test_no_more_coroutines_run_than_there_are_slots(client: Client, start: Start) -> None:
    with start("-c", "2"):
        naps = [client.submit("aio_nap", 60), client.submit("aio_nap", 60)]
        for job in naps:
            client.event(job, State.STARTED)
        waits = client.submit("aio_add", 1)
        client.control("revoke", task_id=naps[0])
        assert client.end(waits).result == 3


@pytest.mark.parametrize("stored", [False, True])
def test_an_errback_that_is_a_coroutine_runs_on_the_workers_loop(
    client: Client, start: Start, tmp_path: Path, redis_url: str, stored: bool
) -> None:
    told = tmp_path / "told"
    with start(**({"TEST_RESULTS": redis_url} if stored else {})):
        failed = client.end(client.submit("aio_call_failing", str(told))).result
        client.end(failed)
        assert client.until(lambda: told.exists() and told.read_text()) == f"{failed} no True"


def test_each_coroutine_has_its_own_request_and_context(client: Client, start: Start) -> None:
    with start():
        jobs = [client.submit("aio_self") for _ in range(20)]
        for job in jobs:
            told = client.end(job).result
            assert told.pop("where") is True
            assert set(told.values()) == {job}


def test_a_sync_task_runs_in_a_thread_and_leaves_the_loop_free(client: Client, start: Start, tmp_path: Path) -> None:
    with start():
        slow = client.submit("thread_spin", str(tmp_path), "slow")
        client.event(slow, State.STARTED)
        assert client.end(client.submit("where_sync")).result is False
        assert client.end(client.submit("aio_add", 1)).result == 3
        client.read()
        assert not [e for e in client.events(slow) if e.state.final]
        (tmp_path / "slow.end").touch()
        assert client.end(slow).state is State.SUCCESS


@pytest.mark.parametrize(
    ("task", "arguments", "attempt"), [("aio_retry", (), 3), ("aio_autoretry", (2,), 3), ("aio_nap", (0,), 1)]
)
def test_a_coroutine_retries_as_any_task(
    client: Client, start: Start, task: str, arguments: tuple[Any, ...], attempt: int
) -> None:
    with start():
        end = client.end(client.submit(task, *arguments))
    assert (end.state, end.attempt) == (State.SUCCESS, attempt)


def test_a_coroutine_is_retried_as_its_caller_asked(client: Client, start: Start) -> None:
    with start():
        end = client.end(client.submit("aio_attempts", 1, retries=2))
    assert (end.state, end.result, end.attempt) == (State.SUCCESS, 1, 2)


def test_a_coroutine_may_ignore_reject_and_be_cancelled_from_within(client: Client, start: Start) -> None:
    with start():
        assert client.end(client.submit("aio_ignore")).reason == Reason.IGNORED
        rejected = client.submit("aio_reject")
        assert client.end(rejected).state is State.FAILURE
        client.dead(rejected, Reason.REJECTED)
        end = client.end(client.submit("aio_cancelled"))
    assert end.error is not None
    assert end.error.type.endswith("CancelledFromWithin")


def test_a_soft_limit_is_raised_where_the_coroutine_waits(client: Client, start: Start, tmp_path: Path) -> None:
    with start():
        end = client.end(client.submit("aio_soft", str(tmp_path / "end")))
    assert (end.result, (tmp_path / "end").read_text()) == ("in time", "soft")


def test_a_hard_limit_cancels_the_coroutine(client: Client, start: Start, tmp_path: Path) -> None:
    with start() as running:
        end = client.end(client.submit("aio_tidy", str(tmp_path / "end"), time_limit=0.5))
        assert (end.state, end.reason) == (State.FAILURE, Reason.TIME_LIMIT)
        client.until(lambda: (tmp_path / "end").exists() and (tmp_path / "end").read_text() == "cancelled")
        assert running.stop() == 0
    assert client.depth("celery") == 0


def test_a_coroutine_that_heeds_no_cancellation_is_abandoned_and_its_slot_is_free(client: Client, start: Start) -> None:
    with start("-c", "1") as running:
        job = client.submit("aio_stubborn", 30, time_limit=0.5)
        assert client.end(job).reason == Reason.TIME_LIMIT
        assert client.end(client.submit("aio_add", 1)).result == 3
        client.until(lambda: b"it is left alone" in running.log.read_bytes())
        assert running.stop() == 0  # it is not waited for either


@pytest.mark.parametrize("terminate", [False, True])
def test_revoking_cancels_a_coroutine_that_runs(client: Client, start: Start, tmp_path: Path, terminate: bool) -> None:
    with start() as running:
        job = client.submit("aio_tidy", str(tmp_path / "end"))
        client.event(job, State.STARTED)
        client.control("revoke", task_id=job, terminate=terminate)
        assert client.end(job).state is State.REVOKED
        client.until(lambda: (tmp_path / "end").exists() and (tmp_path / "end").read_text() == "cancelled")
        assert running.stop() == 0
    assert client.depth("celery") == 0


def test_a_coroutine_waits_for_its_eta_and_does_not_run_after_it_expired(client: Client, start: Start) -> None:
    with start():
        due = time.time() + 1.5
        job = client.submit("aio_add", 1, eta=due)
        assert client.event(job, State.STARTED).at >= due - 0.1
        assert client.end(client.submit("aio_add", 1, expires=time.time() - 1)).reason == Reason.EXPIRED


def test_a_rate_limit_spreads_coroutines(client: Client, start: Start) -> None:
    with start():
        starts = sorted(client.end(client.submit("aio_rated")).result for _ in range(6))
    assert starts[-1] - starts[0] > 1.75  # 2.5 s, less what the first took from its permission to its begin


def test_a_worker_that_is_told_to_stop_waits_for_its_coroutines(client: Client, start: Start) -> None:
    with start() as running:
        job = client.submit("aio_nap", 1.5)
        client.event(job, State.STARTED)
        assert running.stop() == 0
    assert client.end(job).attempt == 1
    assert client.depth("celery") == 0


def test_a_worker_that_is_killed_leaves_its_coroutines_to_the_next(
    client: Client, start: Start, tmp_path: Path
) -> None:
    with start() as running:
        job = client.submit("aio_spin", str(tmp_path), "spin")
        client.event(job, State.STARTED)
        running.kill()
    (tmp_path / "spin.end").touch()
    with start():
        assert client.end(job).attempt == 2


def test_a_coroutine_that_is_acknowledged_early_is_not_run_again(client: Client, start: Start, tmp_path: Path) -> None:
    with start() as running:
        job = client.submit("aio_early", str(tmp_path / "began"))
        client.until(lambda: (tmp_path / "began").exists() and client.depth("celery") == 0)
        client.event(job, State.STARTED)
        running.kill()
    with start():
        assert client.end(client.submit("aio_add", 1)).result == 3
    assert len([e for e in client.events(job) if e.state is State.STARTED]) == 1


@pytest.mark.parametrize("kind", ["aio_", ""])
def test_results_are_stored_before_the_event_comes(client: Client, start: Start, redis_url: str, kind: str) -> None:
    with start("-c", "100", TEST_RESULTS=redis_url):
        jobs = [client.submit(f"{kind}add", n) for n in range(100)]
        broken = client.submit(f"{kind}fail", "no")
        reader = Celery(backend=redis_url)
        for n, job in enumerate(jobs):
            client.end(job)
            assert AsyncResult(job, app=reader).result == n + 2
        client.end(broken)
        assert AsyncResult(broken, app=reader).state == "FAILURE"


@pytest.mark.parametrize("kind", ["aio_", ""])
def test_a_result_backend_that_goes_away_is_waited_for(
    rabbitmq_url: str, redis: Redis, tmp_path: Path, kind: str
) -> None:
    client = Client(rabbitmq_url)
    backend = Redis().start()
    with worker(client, tmp_path, "-P", "asyncio", "-I", MODULE, TEST_RESULTS=backend.url):
        assert client.end(client.submit("aio_add", 1)).result == 3
        backend.kill()
        jobs = [client.submit(f"{kind}add", n) for n in range(4)]
        for job in jobs:
            client.event(job, State.STARTED)
        backend.start()
        for n, job in enumerate(jobs):
            end = client.end(job)
            assert (end.result, end.attempt) == (n + 2, 1)
            assert AsyncResult(job, app=Celery(backend=backend.url)).result == n + 2
    backend.close()
    client.close()


def test_signals_come_in_celerys_order(client: Client, start: Start, tmp_path: Path) -> None:
    with start(TEST_SIGNALS=str(tmp_path / "signals")):
        client.end(client.submit("aio_add", 1))
    assert (tmp_path / "signals").read_text().split() == ["task_prerun", "task_success", "task_postrun"]


def test_a_coroutine_may_submit_another_task(client: Client, start: Start) -> None:
    with start():
        called = client.end(client.submit("aio_call", 5)).result
        end = client.end(called)
    assert end.result == 7


def test_coroutines_go_on_while_the_broker_is_away(rabbitmq: RabbitMQ, rabbitmq_url: str, tmp_path: Path) -> None:
    client = Client(rabbitmq_url)
    with worker(client, tmp_path, "-P", "asyncio", "-I", MODULE) as running:
        job = client.submit("aio_nap", 2.0)
        client.event(job, State.STARTED)
        rabbitmq.ctl("close_all_connections", "--vhost", client.url.rpartition("/")[2], "test")
        assert client.end(job).attempt == 1
        assert client.end(client.submit("aio_add", 1)).result == 3
        assert running.stop() == 0
    client.close()


def test_a_cold_shutdown_cancels_coroutines_and_their_messages_go_back(
    client: Client, start: Start, tmp_path: Path
) -> None:
    with start() as running:
        job = client.submit("aio_tidy", str(tmp_path / "end"))
        client.event(job, State.STARTED)
        running.process.send_signal(signal.SIGQUIT)
        running.process.wait(DEADLINE)
    assert (tmp_path / "end").read_text() == "cancelled"
    client.until(lambda: client.depth("celery") == 1, "its message")
    assert not [e for e in client.events(job) if e.state.final]


def test_the_pool_grows_by_remote_control(client: Client, start: Start) -> None:
    with start("-c", "1") as running:
        first = client.submit("aio_meet", 2)
        client.event(first, State.STARTED)
        second = client.submit("aio_meet", 2)
        client.control("pool_grow", n=1)
        assert {client.end(first).result, client.end(second).result} == {2}
        client.control("shutdown")
        assert running.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("way", ["setting", "variable"])
def test_the_pool_works_under_plain_celery(rabbitmq_url: str, redis_url: str, tmp_path: Path, way: str) -> None:
    pool = "dure.worker.aio.asyncio:TaskPool"
    argv, variable = ((), "TEST_POOL") if way == "setting" else (("-P", "custom"), "CELERY_CUSTOM_WORKER_POOL")
    client, reader = Client(rabbitmq_url), Celery(backend=redis_url)
    sender = Celery(broker=rabbitmq_url, backend=redis_url)
    with worker(
        client, tmp_path, *argv, "-I", MODULE, stock=True, TEST_RESULTS=redis_url, **{variable: pool}
    ) as running:
        jobs = [client.submit(name, *args) for name, *args in (["aio_add", 1], ["aio_retry"], ["add", 5])]
        told = client.submit("aio_self")
        client.until(lambda: all(AsyncResult(job, app=reader).ready() for job in [*jobs, told]), "the results")
        assert [AsyncResult(job, app=reader).result for job in jobs] == [3, 2, 7]
        assert AsyncResult(told, app=reader).result["child"] == told
        for headers in ({"mine": "1"}, None):
            sent = sender.send_task(f"{app_name()}.aio_headers", headers=headers)
            assert sent.get(timeout=DEADLINE) == headers
        stopped = client.submit("aio_nap", 60)
        client.until(lambda: f"[{stopped}] received".encode() in running.log.read_bytes(), "its message")
        sender.control.revoke(stopped, terminate=True)
        client.until(lambda: AsyncResult(stopped, app=reader).state == "REVOKED", "its end")
        assert running.stop() == 0
    client.close()


def test_a_worker_consumes_soon_after_its_broker_is_back(tmp_path: Path) -> None:
    broker = RabbitMQ().start()
    client = Client(broker.url)
    try:
        with worker(client, tmp_path, "-P", "asyncio", "-I", MODULE) as running:
            job = client.submit("aio_tidy", str(tmp_path / "end"), 8.0)
            client.event(job, State.STARTED)
            broker.stop()
            deadline = time.monotonic() + DEADLINE
            while running.log.read_bytes().count(b"Cannot connect to") < 5:
                assert time.monotonic() < deadline, "it does not try to connect"
                time.sleep(0.05)
            broker.start()
            back = time.monotonic()
            client.reconnect()
            assert client.end(client.submit("aio_add", 1)).result == 3
            assert time.monotonic() - back < 10  # two seconds between tries, and a slow machine
            assert client.end(job).attempt == 1
            assert running.stop() == 0
    finally:
        client.close()
        broker.close()


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_coroutines_run_in_stock_pools(client: Client, tmp_path: Path, pool: str) -> None:
    with worker(client, tmp_path, "-P", pool, "-c", "2", "-I", MODULE):
        assert client.end(client.submit("aio_add", 1)).result == 3
        assert client.end(client.submit("aio_retry")).attempt == 3
        told = client.end(job := client.submit("aio_self")).result
        assert {told["before"], told["after"], told["colour"]} == {job}


def test_a_soft_limit_reaches_a_coroutine_under_prefork(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-P", "prefork", "-c", "1", "-I", MODULE):
        end = client.end(client.submit("aio_soft", str(tmp_path / "end")))
    assert (end.result, (tmp_path / "end").read_text()) == ("in time", "soft")
