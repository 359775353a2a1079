"""Jobs that a worker holds and has no slot for: what is decided of them meanwhile holds."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dure.job import Reason, State
from tests.integration.each_broker import BROKERS, client_of
from tests.integration.process_tasks import MODULE
from tests.integration.worker_harness import Client, Worker, worker

client = pytest.fixture(params=BROKERS)(client_of)


class Queue:
    """A lane of one slot, which its first job keeps until `free`."""

    def __init__(self, client: Client, running: Worker, folder: Path, task: str) -> None:
        self.client, self.running, self.folder, self.task = client, running, folder, task
        self.first = client.submit(task, str(folder), "first")
        client.event(self.first, State.STARTED)

    def add(self, name: str, **options: float) -> str:
        (self.folder / f"{name}.end").touch()
        job = self.client.submit(self.task, str(self.folder), name, **options)
        self.client.event(job, State.QUEUED)
        return job

    def revoke(self, job: str, terminate: bool) -> None:
        self.client.control("revoke", task_id=job, terminate=terminate)
        words = "Terminating" if terminate else "flagged as revoked"
        self.client.until(lambda: words in self.running.log.read_text(), "the worker's word")

    def free(self) -> None:
        (self.folder / "first.end").touch()
        assert self.client.end(self.first).state is State.SUCCESS

    def ran(self, name: str) -> bool:
        return (self.folder / name).exists()


@pytest.fixture(params=["aio_spin", "thread_spin", "cpu_spin"])
def queue(request: pytest.FixtureRequest, client: Client, tmp_path: Path) -> Iterator[Queue]:
    argv = ("-P", "asyncio", "-c", "1", "--prefetch-multiplier", "4", "-I", MODULE)
    with worker(client, tmp_path, *argv, TEST_THREADS="1", TEST_PROCESSES="1") as running:
        yield Queue(client, running, tmp_path, request.param)


@pytest.mark.parametrize("terminate", [False, True])
def test_a_revoked_one_does_not_run(client: Client, queue: Queue, terminate: bool) -> None:
    job, after = queue.add("revoked"), queue.add("after")
    queue.revoke(job, terminate)
    queue.free()
    assert client.end(job).state is State.REVOKED
    assert client.end(after).state is State.SUCCESS
    assert not queue.ran("revoked")


def test_an_expired_one_does_not_run(client: Client, queue: Queue) -> None:
    job, after = queue.add("expired", expires=time.time() + 3), queue.add("after")
    time.sleep(3.1)
    queue.free()
    assert client.end(job).reason == Reason.EXPIRED
    assert client.end(after).state is State.SUCCESS
    assert not queue.ran("expired")
