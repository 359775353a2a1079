"""A job that was cancelled is not begun by any worker, whenever that worker starts."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection

from dure.broker.store import Store
from dure.job import Reason, State
from dure.revocation import STREAM, STREAM_ARGUMENTS, Revocation, encode
from tests.integration.worker_harness import Client, worker
from tests.services import RabbitMQ


@pytest.fixture
def client(rabbitmq_url: str) -> Iterator[Client]:
    client = Client(rabbitmq_url)
    yield client
    client.close()


def revoke(client: Client, *ids: str, terminate: bool = False, others: int = 0) -> None:
    """As the gateway writes it down, without the broadcast beside it."""
    with client.connection.channel() as channel:
        channel.queue_declare(queue=STREAM, durable=True, auto_delete=False, arguments=STREAM_ARGUMENTS)
        for number in range(others):
            other = channel.prepare_message(encode(Revocation(ids=(f"other-{number}",))))
            channel.basic_publish(other, exchange="", routing_key=STREAM)
        body = encode(Revocation(ids=ids, terminate=terminate, at=time.time()))
        message = channel.prepare_message(body, content_type="application/json")
        channel.basic_publish_confirm(message, exchange="", routing_key=STREAM, mandatory=True)


def test_a_job_cancelled_before_the_worker_started_is_not_run(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    with client.connection.channel() as channel:
        channel.queue_declare("celery", durable=True, auto_delete=False)
    cancelled, waiting = client.submit("note", str(path)), client.submit("noop")
    revoke(client, cancelled, others=3000)  # more than come at once
    with worker(client, tmp_path, "-c", "1") as first:
        end = client.end(cancelled)
        assert (end.state, end.reason) == (State.REVOKED, Reason.REVOKED)
        assert client.end(waiting).state is State.SUCCESS
        assert first.stop() == 0
    assert not path.exists()
    assert client.depth("celery") == 0


def test_jobs_are_cancelled_while_they_wait_or_run(client: Client, rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    with worker(client, tmp_path, "-P", "prefork", "-c", "1") as running:
        retrying = client.submit("attempts", 9, retries=9)
        client.event(retrying, State.RETRY, attempt=2)
        later = client.submit("note", str(path), eta=time.time() + 5)  # after the pauses of the other
        client.event(later, State.QUEUED)
        revoke(client, retrying, later)
        assert {client.end(job).reason for job in (retrying, later)} == {Reason.REVOKED}

        job = client.submit("note", str(path), 20.0)
        client.event(job, State.STARTED)
        revoke(client, job, terminate=True)
        end = client.end(job)
        assert (end.state, end.reason, end.attempt) == (State.REVOKED, Reason.TERMINATED, 1)

        rabbitmq.ctl("close_all_connections", "--vhost", client.url.rpartition("/")[2], "test")
        client.reconnect()
        after = client.submit("note", str(path), eta=time.time() + 5)
        revoke(client, after)
        assert client.end(after).reason == Reason.REVOKED
        assert client.end(client.submit("noop")).state is State.SUCCESS
        assert running.stop() == 0
    assert path.read_text() == "run\n"
    assert client.depth("celery") == 0


def test_a_job_that_the_pool_cannot_end_runs_to_its_end(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-c", "1") as running:
        job = client.submit("note_until", str(tmp_path / "runs"), str(tmp_path / "end"))
        client.event(job, State.STARTED)
        revoke(client, job, terminate=True)
        client.until(lambda: b"cannot stop a job that runs" in running.log.read_bytes())
        (tmp_path / "end").touch()
        assert client.end(job).result == "noted"
        assert client.end(client.submit("noop")).state is State.SUCCESS


def test_a_broker_that_lets_nobody_have_a_stream_is_told_of_and_used(
    rabbitmq: RabbitMQ, rabbitmq_url: str, tmp_path: Path
) -> None:
    url = rabbitmq.user(rabbitmq_url, "nostream", may_declare="^(?!dure\\.revoked).*")
    client = Client(url)
    with worker(client, tmp_path, "-c", "1") as running:
        assert client.end(client.submit("noop")).state is State.SUCCESS
        assert running.log.read_text().count("log of cancelled jobs cannot be read") == 1
    client.close()


def test_on_the_embedded_broker_too(tmp_path: Path) -> None:
    client = Client(f"dure://{tmp_path}/broker.db")
    path = tmp_path / "runs"
    store = store_of(client.connection)
    with worker(client, tmp_path, "-P", "prefork", "-c", "1"):
        client.end(client.submit("noop"))
    cancelled = client.submit("note", str(path))
    store.revoke([cancelled], terminate=False)
    with worker(client, tmp_path, "-P", "prefork", "-c", "1"):
        assert client.end(cancelled).reason == Reason.REVOKED
        job = client.submit("sleep", 20.0)
        client.event(job, State.STARTED)
        store.revoke([job], terminate=True)
        assert client.end(job).reason == Reason.TERMINATED
        assert client.end(client.submit("noop")).state is State.SUCCESS
    assert not path.exists()
    client.close()


def store_of(connection: Connection) -> Store:
    connection.default_channel  # noqa: B018  connects
    store: Store = connection.transport.store
    return store
