"""Stock Celery on the embedded broker and result store: real worker processes, each pool, nothing changed in Celery."""

from __future__ import annotations

import importlib.util
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError

from dure.broker.store import Store

SOURCE = str(Path(__file__).parents[2] / "src")
COMMAND = ["-m", "celery", "-A", "tasks", "worker", "-c", "2", "-l", "INFO", "--without-mingle", "--without-gossip"]
TASKS = """
import os, time
from pathlib import Path
import dure.broker
from celery import Celery

folder = str(Path(__file__).parent)
app = Celery(
    "tasks",
    broker=f"dure://{folder}/broker.db",
    backend=f"dure.worker.backend:Backend+dure://{folder}/results.db",
)
app.conf.update(
    task_acks_late=True, worker_prefetch_multiplier=1, task_send_sent_event=True, worker_send_task_events=True,
    broker_connection_retry_on_startup=True, worker_cancel_long_running_tasks_on_connection_loss=False,
    task_reject_on_worker_lost=True,
)

def note(line):
    with open(f"{folder}/notes", "a") as notes:
        notes.write(f"{line}\\n")

@app.task(shared=False)
def add(x, y):
    return x + y

@app.task(shared=False)
def total(numbers):
    return sum(numbers)

@app.task(shared=False)
def fail():
    raise ValueError("on purpose")

@app.task(bind=True, shared=False)
def write(self, line):
    note(f"{line} {self.request.delivery_info['redelivered']}")

@app.task(bind=True, shared=False)
def work(self, name, seconds):
    note(f"{name} began {os.getpid()} {self.request.delivery_info['redelivered']}")
    if seconds is None:
        while not Path(f"{folder}/go").exists():
            time.sleep(0.02)
    else:
        time.sleep(seconds)
    note(f"{name} ended")
    return name
"""


@dataclass
class Site:
    """A folder with the two files, the application on it, and the workers started for it."""

    folder: Path
    app: Celery
    workers: list[subprocess.Popen[bytes]]

    @property
    def task(self) -> Any:
        return {name.removeprefix("tasks."): task for name, task in self.app.tasks.items()}.__getitem__

    def start(self, pool: str, name: str = "one", *options: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, *COMMAND, "-P", pool, "-n", f"{name}@test", *options],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": SOURCE},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(worker)
        until(lambda: self.ping(name))
        return worker

    def ping(self, name: str = "one") -> bool:
        return bool(self.app.control.ping(destination=[f"{name}@test"], timeout=0.5))

    def notes(self) -> list[str]:
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def end(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
        self.app.close()


def until(condition: Callable[[], object], within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.02)


def new_site(folder: Path) -> Site:
    (folder / "tasks.py").write_text(TASKS)
    spec = importlib.util.spec_from_file_location("tasks", folder / "tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Site(folder, module.app, [])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = new_site(tmp_path)
    yield site
    site.end()


@pytest.fixture(scope="module", params=["threads", "prefork", "solo"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = new_site(tmp_path_factory.mktemp(request.param))
    site.start(request.param)
    yield site
    site.end()


def test_a_task_is_run_and_its_result_comes_back(served: Site) -> None:
    assert served.task("add").delay(2, 3).get(timeout=10) == 5
    with pytest.raises(ValueError, match="on purpose"):
        served.task("fail").delay().get(timeout=10)


def test_a_second_task_starts_soon_after_the_first_is_acknowledged(served: Site) -> None:
    began = time.monotonic()
    for n in range(10):
        assert served.task("add").delay(n, n).get(timeout=10) == 2 * n
    assert time.monotonic() - began < 5


def test_canvas_runs(served: Site) -> None:
    add, total = served.task("add"), served.task("total")
    assert group(add.s(n, n) for n in range(8))().get(timeout=10) == [2 * n for n in range(8)]
    assert chain(add.s(1, 1), add.s(2), add.s(3))().get(timeout=10) == 7
    assert chord([add.s(n, n) for n in range(8)])(total.s()).get(timeout=10) == 56


def test_a_countdown_is_waited_for(served: Site) -> None:
    began = time.monotonic()
    assert served.task("add").apply_async((1, 1), countdown=0.7).get(timeout=10) == 2
    assert 0.6 < time.monotonic() - began < 10


def test_a_waiting_task_can_be_revoked(served: Site) -> None:
    result = served.task("add").apply_async((1, 1), countdown=3)
    served.app.control.revoke(result.id, reply=True, destination=["one@test"], timeout=10)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=20)
    # It is told at once, and acknowledged when its time has come.
    inspect = served.app.control.inspect(["one@test"], timeout=5)
    until(lambda: inspect.scheduled() == {"one@test": []})


def test_remote_control_is_answered(served: Site) -> None:
    inspect = served.app.control.inspect(["one@test"], timeout=5)
    assert inspect.ping() == {"one@test": {"ok": "pong"}}
    until(lambda: inspect.active() == {"one@test": []})  # the result of a task is stored before the task has ended
    assert inspect.stats()["one@test"]["broker"]["transport"] == "dure"


def test_events_reach_a_receiver(served: Site) -> None:
    wanted = {"task-sent", "task-received", "task-started", "task-succeeded"}
    seen: list[str] = []
    with served.app.connection_for_read() as connection:
        receiver = served.app.events.Receiver(connection, handlers={"*": lambda event: seen.append(event["type"])})
        listener = threading.Thread(target=receiver.capture, kwargs={"wakeup": False})
        listener.start()
        until(lambda: served.task("add").delay(1, 2).get(timeout=10) and wanted <= set(seen))
        receiver.should_stop = True
        listener.join(timeout=10)


def test_a_terminated_worker_finishes_what_it_runs(served: Site) -> None:
    """The last on each pool: it ends the worker."""
    (worker,) = served.workers
    result = served.task("work").delay("slow", 0.5)
    until(lambda: any(line.startswith("slow began") for line in served.notes()))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 0
    assert result.get(timeout=5) == "slow"
    with served.app.connection_for_read() as connection:
        store = connection.default_channel.connection.store
        assert [depth.name for depth in store.queues()] == ["celery"]
        assert store.depth("celery").messages == store.depth("celery").consumers == 0


def test_purging_empties_the_queue(site: Site) -> None:
    for n in range(5):
        site.task("write").delay(n)
    assert site.app.control.purge() == 5


def test_higher_priorities_run_first(site: Site) -> None:
    for priority in (0, 9, 5, 9, 0):
        site.task("write").apply_async((priority,), priority=priority)
    site.start("solo")
    until(lambda: len(site.notes()) == 5)
    assert [line.split()[0] for line in site.notes()] == ["9", "9", "5", "0", "0"]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_killed_workers_task_is_run_again_by_an_idle_one(site: Site, pool: str) -> None:
    first = site.start(pool, "one")
    site.task("work").delay("job", None)  # it does not end while the other worker starts
    until(lambda: len(site.notes()) == 1)
    assert site.notes()[0].endswith("False")
    site.start(pool, "two")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    until(lambda: len([line for line in site.notes() if line.startswith("job began")]) == 2)
    assert site.notes()[-1].endswith("True")
    (site.folder / "go").touch()
    until(lambda: site.notes()[-1] == "job ended")


def test_a_task_that_its_workers_do_not_survive_becomes_a_dead_letter(site: Site) -> None:
    store = Store(site.folder / "broker.db")
    store.declare_exchange("dead", "fanout")
    store.declare_queue("dead")
    store.bind("dead", "dead")
    store.declare_queue("celery", arguments={"x-dead-letter-exchange": "dead", "x-delivery-limit": 0})
    result = site.task("work").delay("poison", 30)
    worker = site.start("threads", "one")
    until(lambda: len(site.notes()) == 1)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    site.start("threads", "two")
    until(lambda: store.holds("dead", [result.id]), within=15)
    (letter,) = store.claim(["dead"], 1)
    (death,) = letter.message.properties["headers"]["x-death"]
    assert (death["reason"], death["queue"], death["count"]) == ("delivery_limit", "celery", 1)
    assert not store.holds("celery", [result.id])
    assert len(site.notes()) == 1
    store.close()


def test_a_killed_main_process_is_enough_though_its_children_live(site: Site) -> None:
    first = site.start("prefork", "one")
    site.task("work").delay("job", 30)
    until(lambda: len(site.notes()) == 1)
    os.kill(first.pid, signal.SIGKILL)
    site.start("threads", "two")
    until(lambda: len(site.notes()) >= 2, within=15)


def test_a_busy_worker_is_not_robbed_by_an_idle_one(site: Site) -> None:
    site.start("solo", "one")
    result = site.task("work").delay("job", 3)  # solo: its only thread is in the task all the while
    until(lambda: len(site.notes()) == 1)
    site.start("solo", "two")
    assert result.get(timeout=10) == "job"
    assert [line.split()[1] for line in site.notes()] == ["began", "ended"]


def test_remote_control_is_answered_while_every_thread_is_busy(site: Site) -> None:
    site.start("threads")
    results = [site.task("work").delay(f"job{n}", None) for n in range(6)]  # none ends before the worker does
    until(lambda: len(site.notes()) == 2)
    active = site.app.control.inspect(["one@test"], timeout=10).active()
    assert len(active["one@test"]) == 2
    for result in results:
        result.revoke()


def test_the_clients_threads_may_share_the_application(site: Site) -> None:
    site.start("threads")
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(site.task("add").delay(n, 1).get(timeout=10)))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(1, 9))


def test_a_file_that_another_process_keeps_locked_only_makes_everyone_wait(site: Site) -> None:
    worker = site.start("threads")
    blocker = sqlite3.connect(site.folder / "broker.db", isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN IMMEDIATE")
    unlock = threading.Timer(2, lambda: blocker.execute("COMMIT"))
    began = time.monotonic()  # before the timer's two seconds begin
    unlock.start()
    assert site.task("add").delay(1, 2).get(timeout=10) == 3
    assert time.monotonic() - began > 1.5
    unlock.join()
    blocker.close()
    assert worker.poll() is None
    assert "Connection to broker lost" not in (site.folder / "one.log").read_text()
