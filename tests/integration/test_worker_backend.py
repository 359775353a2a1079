"""A result backend that is away, or refuses: nothing is acknowledged whose result could not be stored."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis as RedisClient

from dure.job import State
from tests.integration.worker_harness import Client, worker
from tests.services import Redis


@pytest.fixture
def backend() -> Iterator[Redis]:
    """A server of its own, for it is killed."""
    if why := Redis.missing():
        pytest.skip(why)
    server = Redis().start()
    yield server
    server.close()


@pytest.mark.parametrize("pool", ["asyncio", "threads", "prefork"])
def test_results_wait_for_a_backend_that_is_away_and_no_slot_is_lost(
    rabbitmq_url: str, backend: Redis, tmp_path: Path, pool: str
) -> None:
    client = Client(rabbitmq_url)
    with worker(client, tmp_path, "-P", pool, "-c", "2", TEST_RESULTS=backend.database()):
        assert client.end(client.submit("add", 1)).state is State.SUCCESS
        backend.kill()
        jobs = [client.submit("add", number) for number in range(6)]
        client.event(jobs[1], State.STARTED)
        assert not any(event.state.final for job in jobs for event in client.events(job))
        backend.start()
        assert [(client.end(job).state, client.end(job).result) for job in jobs] == [
            (State.SUCCESS, number + 2) for number in range(6)
        ]
        assert all(event.attempt in (None, 1) for job in jobs for event in client.events(job))
    client.close()


def test_a_backend_that_refuses_a_result_ends_the_job_and_frees_its_slot(
    rabbitmq_url: str, backend: Redis, tmp_path: Path
) -> None:
    client = Client(rabbitmq_url)
    url = backend.database()
    with worker(client, tmp_path, "-c", "1", TEST_RESULTS=url), RedisClient.from_url(url) as redis:
        redis.config_set("maxmemory", 1)  # every write is answered with OOM from here on
        end = client.end(client.submit("add", 1))
        assert end.state is State.FAILURE
        assert end.error is not None
        assert "maxmemory" in end.error.message
        redis.config_set("maxmemory", 0)
        assert client.end(client.submit("add", 2)).result == 4
    client.close()
