"""`dure worker --processes N`: several workers, and one supervisor that replaces those that die."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dure.job import State
from tests.integration.aio_tasks import MODULE
from tests.integration.each_broker import BROKERS, client_of
from tests.integration.worker_harness import CHECKOUT, DEADLINE, Client, app_name
from tests.processes import alive, children

START_DEADLINE = 4 * DEADLINE  # several interpreters begin at once
COMMAND = [sys.executable, "-m", "dure", "worker", "-A", app_name(), "-I", MODULE, "-l", "INFO", "--without-mingle"]


@dataclass
class Workers:
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text()

    def ready(self) -> list[str]:
        """The names of workers, each time that one was ready."""
        return sorted(line.split()[-2] for line in self.text.splitlines() if line.endswith(" ready."))

    def pids(self) -> dict[str, int]:
        """Those that run, by their numbers."""
        deadline = time.monotonic() + START_DEADLINE
        # Between fork and exec a command line is the supervisor's, and in the midst of an exec it is empty.
        while "" in (found := self._numbered()):
            assert time.monotonic() < deadline, f"no number: {found}"
            time.sleep(0.01)
        return found

    def _numbered(self) -> dict[str, int]:
        """Under "" is one whose command line has no number."""
        found = {}
        for pid, words in children(self.process.pid).items():
            found[words[words.index("--process") + 1] if "--process" in words else ""] = pid
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


client = pytest.fixture(params=BROKERS)(client_of)


@contextlib.contextmanager
def begun(folder: Path, url: str, *argv: str) -> Iterator[Workers]:
    log = folder / "workers.log"
    environment = {"PYTHONPATH": f"{CHECKOUT / 'src'}:{CHECKOUT}", "DURE_HOME": str(folder), "NO_COLOR": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "--broker-url", url, *argv],
            cwd=folder,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield Workers(process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            process.kill()  # what it started has its signal from the kernel
        process.wait()


@contextlib.contextmanager
def workers(client: Client, folder: Path, *argv: str, count: int = 2) -> Iterator[Workers]:
    with begun(folder, client.url, "--processes", str(count), *argv) as running:
        deadline = time.monotonic() + START_DEADLINE
        while len(running.ready()) < count and running.process.poll() is None:
            assert time.monotonic() < deadline, running.text
            time.sleep(0.05)
        assert running.process.poll() is None, running.text
        yield running


@pytest.mark.parametrize("pool", ["asyncio", "prefork", "threads", "solo"])
def test_each_has_a_name_of_its_own_and_all_end_with_the_supervisor(client: Client, tmp_path: Path, pool: str) -> None:
    with workers(client, tmp_path, "-P", pool, "-c", "1") as running:
        host = os.uname().nodename
        assert running.ready() == [f"celery@{host}-1", f"celery@{host}-2"]
        jobs = [client.submit("sleep", 1.0) for _ in range(4)]
        assert {client.end(job).worker for job in jobs} == {f"celery@{host}-1", f"celery@{host}-2"}
        pids = running.pids()
        assert running.stop() == 0
        assert not any(map(alive, pids.values()))


@pytest.mark.parametrize(
    ("given", "names"), [("mail@box", ["mail@box-1", "mail@box-2"]), ("w%i@box", ["w1@box", "w2@box"])]
)
def test_a_host_name_is_numbered_as_it_says(rabbitmq_url: str, tmp_path: Path, given: str, names: list[str]) -> None:
    client = Client(rabbitmq_url)
    with workers(client, tmp_path, "-n", given) as running:
        assert running.ready() == names
    client.close()


def test_one_that_is_killed_is_replaced_and_its_jobs_run_elsewhere(client: Client, tmp_path: Path) -> None:
    with workers(client, tmp_path, "-n", "w%i@box", "-c", "10") as running:
        naps = [client.submit("aio_nap", 10.0) for _ in range(10)]
        where = {job: client.event(job, State.STARTED).worker for job in naps}
        victim = where[naps[0]]
        assert victim is not None
        number = victim[1]
        before = running.pids()
        os.kill(before[number], signal.SIGKILL)
        for job, first in where.items():
            assert client.end(job).attempt == (2 if first == victim else 1)
        client.until(lambda: len(running.ready()) == 3, "another worker")
        after = running.pids()
        assert after.pop(number) != before.pop(number)
        assert after == before
        assert f"worker-{number} ended (SIGKILL); starts again in 0.5 s" in running.text


def test_a_drain_takes_as_long_as_its_jobs(client: Client, tmp_path: Path) -> None:
    with workers(client, tmp_path, "-c", "2") as running:
        jobs = [client.submit(name, 3.0) for name in ("aio_nap", "sleep")]
        for job in jobs:
            client.event(job, State.STARTED)
        assert running.stop() == 0
    assert [client.end(job).attempt for job in jobs] == [1, 1]
    assert client.depth("celery") == 0


def test_a_second_signal_kills_and_the_jobs_go_back(client: Client, tmp_path: Path) -> None:
    with workers(client, tmp_path) as running:
        job = client.submit("aio_nap", 60.0)
        client.event(job, State.STARTED)
        running.process.send_signal(signal.SIGTERM)
        client.until(lambda: "once more to kill" in running.text, "its word")
        pids = running.pids()
        assert running.stop() == 0
        assert not any(map(alive, pids.values()))
    client.until(lambda: client.depth("celery") == 1, "the message")


def test_sigquit_has_them_give_back_what_they_run(client: Client, tmp_path: Path) -> None:
    with workers(client, tmp_path) as running:
        job = client.submit("aio_tidy", str(tmp_path / "end"))
        client.event(job, State.STARTED)
        assert running.stop(signal.SIGQUIT) == 0
    assert (tmp_path / "end").read_text() == "cancelled"
    client.until(lambda: client.depth("celery") == 1, "the message")


def test_workers_leave_with_a_supervisor_that_is_killed(client: Client, tmp_path: Path) -> None:
    with workers(client, tmp_path) as running:
        pids = running.pids()
        running.process.kill()
        running.process.wait()
        client.until(lambda: not any(map(alive, pids.values())), "their end")


def test_each_begins_anew_in_its_own_process(client: Client, tmp_path: Path) -> None:
    with workers(client, tmp_path, "-c", "5", "--max-tasks-per-child", "10") as running:
        pids = running.pids()
        jobs = [client.submit("aio_nap", 0.1) for _ in range(60)]
        assert {client.end(job).attempt for job in jobs} == {1}
        client.until(lambda: len(running.ready()) >= 4, "workers that begin anew")
        assert running.pids() == pids
        assert "starts again" not in running.text
        assert running.stop() == 0
    assert client.depth("celery") == 0


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["--beat"], "periodic jobs"),
        (["-A", "no_such_module"], "no_such_module"),
    ],
)
def test_a_wrong_configuration_stops_all(tmp_path: Path, argv: list[str], what: str) -> None:
    with begun(tmp_path, f"dure://{tmp_path}/broker.db", "--processes", "2", *argv) as running:
        assert running.process.wait(START_DEADLINE) == 2, running.text
        assert what in running.text
        assert "starts again" not in running.text


def test_the_pause_before_a_new_start_grows(tmp_path: Path) -> None:
    """A pidfile that somebody holds has each start fail at once."""
    (tmp_path / "held-1.pid").write_text(f"{os.getpid()}\n")
    (tmp_path / "held-2.pid").write_text(f"{os.getpid()}\n")
    argv = ("--processes", "2", "-n", "w@held%I", "--pidfile", "%h.pid")
    with begun(tmp_path, f"dure://{tmp_path}/broker.db", *argv) as running:
        deadline = time.monotonic() + START_DEADLINE
        while "starts again in 2 s" not in running.text:
            assert time.monotonic() < deadline, running.text
            assert running.process.poll() is None, running.text
            time.sleep(0.05)
        assert running.text.index("again in 0.5 s") < running.text.index("again in 1 s")
        assert running.stop() == 0
