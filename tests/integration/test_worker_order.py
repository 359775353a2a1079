"""Result stored, event confirmed, message acknowledged: in this order, and nothing left behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from celery.result import AsyncResult

from dure.job import Reason, State
from tests.integration.worker_harness import DEADLINE, Client, worker
from tests.services import RabbitMQ


@pytest.fixture
def client(rabbitmq_url: str) -> Iterator[Client]:
    client = Client(rabbitmq_url)
    yield client
    client.close()


def test_a_worker_killed_before_its_event_leaves_the_message(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-c", "1", TEST_DELAY_SUCCESS="60") as first:
        job = client.submit("noop")
        client.until(lambda: b"succeeded in" in first.log.read_bytes())
        first.kill()
    assert not [e for e in client.events(job) if e.state.final]
    with worker(client, tmp_path, "-c", "1"):
        end = client.end(job)
    assert (end.state, end.attempt) == (State.SUCCESS, 2)


def test_a_lost_pool_process_is_a_new_attempt(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-P", "prefork", "-c", "1"):
        job = client.submit("die_once", str(tmp_path / "died"))
        end = client.end(job)
    assert (end.result, end.attempt) == ("survived", 2)


def test_jobs_that_end_while_the_worker_stops_are_told_and_acknowledged(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-c", "2", TEST_DELAY_SUCCESS="1") as running:
        jobs = [client.submit("sleep", 0.5) for _ in range(2)]
        for job in jobs:
            client.event(job, State.STARTED)
        assert running.stop() == 0
    assert [client.end(job).attempt for job in jobs] == [1, 1]
    assert client.depth("celery") == 0


def test_an_expired_job_is_told_and_acknowledged(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path):
        job = client.submit("noop", expires=1.0)
        end = client.end(job)
        client.until(lambda: client.depth("celery") == 0)
    assert (end.state, end.reason) == (State.FAILURE, Reason.EXPIRED)


def test_a_revoked_job_is_told_and_acknowledged(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-c", "1") as running:
        first = client.submit("note_until", str(tmp_path / "runs"), str(tmp_path / "end"))
        second = client.submit("noop")
        client.event(first, State.STARTED)
        client.control("revoke", task_id=second)
        client.until(lambda: b"flagged as revoked" in running.log.read_bytes(), "the worker's word")
        (tmp_path / "end").touch()
        assert client.end(second).state is State.REVOKED
        assert running.stop() == 0
    assert client.depth("celery") == 0


def test_a_hard_time_limit_is_told_and_acknowledged(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-P", "prefork", "-c", "1") as running:
        job = client.submit("sleep", 30.0, time_limit=1.0)
        end = client.end(job)
        assert client.end(client.submit("noop")).state is State.SUCCESS
        assert running.stop() == 0
    assert (end.state, end.reason) == (State.FAILURE, Reason.TIME_LIMIT)
    assert client.depth("celery") == 0


def test_an_application_that_wants_no_events_has_its_messages_acknowledged(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-c", "1", TEST_EVENTS="no") as running:
        job = client.submit("noop")
        client.until(lambda: b"succeeded in" in running.log.read_bytes())
        assert running.stop() == 0
    client.read()
    assert not client.events(job)
    assert client.depth("celery") == 0


def test_the_backend_has_the_result_when_the_event_comes(client: Client, redis_url: str, tmp_path: Path) -> None:
    with worker(client, tmp_path, TEST_RESULTS=redis_url):
        done, broken = client.submit("add", 1), client.submit("give", "object")
        assert client.end(done).state is State.SUCCESS
        assert client.end(broken).reason == Reason.UNSERIALIZABLE
    reader = Celery(backend=redis_url)
    assert AsyncResult(done, app=reader).get(timeout=DEADLINE) == 3
    assert AsyncResult(broken, app=reader).state == "FAILURE"


def test_a_job_that_ends_while_connections_are_lost_is_told(client: Client, rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-c", "1") as running:
        job = client.submit("sleep", 2.0)
        client.event(job, State.STARTED)
        rabbitmq.ctl("close_all_connections", "--vhost", client.url.rpartition("/")[2], "test")
        assert client.end(job).state is State.SUCCESS
        assert client.end(client.submit("noop")).state is State.SUCCESS
        client.until(lambda: client.depth("celery") == 0)
        assert running.stop() == 0
    assert client.depth("celery") == 0
