"""A job that runs longer than RabbitMQ lets a consumer hold its message."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dure.job import State
from tests.integration.worker_harness import Client, worker
from tests.services import Fleet, RabbitMQ


@pytest.fixture(scope="module")
def impatient() -> Iterator[RabbitMQ]:
    """A server of its own, that looks every fifth of a second for messages held for longer than one."""
    if why := Fleet.kinds["rabbitmq"].missing():
        pytest.skip(why)
    server = RabbitMQ(more="consumer_timeout = 1000\n", advanced="[{rabbit, [{channel_tick_interval, 200}]}]")
    yield server.start()
    server.close()


@pytest.mark.parametrize(("pool", "queue"), [("asyncio", "celery"), ("prefork", "made")])
def test_a_long_job_runs_once_and_the_worker_goes_on(
    impatient: RabbitMQ, tmp_path: Path, pool: str, queue: str
) -> None:
    client = Client(impatient.vhost())
    with worker(client, tmp_path, "-P", pool, "-c", "1", "-Q", queue) as running:
        assert b"consumer_timeout" in running.log.read_bytes()
        job = client.submit("note_until", str(tmp_path / "runs"), str(tmp_path / "end"), queue=queue)
        client.until(lambda: b"takes the new delivery over" in running.log.read_bytes(), "the new delivery")
        (tmp_path / "end").touch()
        end = client.end(job)
        assert (end.state, end.result, end.attempt) == (State.SUCCESS, "noted", 1)
        assert client.end(client.submit("noop", queue=queue)).state is State.SUCCESS
        assert running.stop() == 0
    assert (tmp_path / "runs").read_text() == "run\n"
    assert client.depth(queue) == 0
    client.close()
