"""A Celery application, a worker process that adopts it, and what a client sees of both.

The application is an ordinary one: it knows nothing of Dure. Run as a module, this is the worker.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from celery import Celery, Task, chain, chord, group
from celery.exceptions import Ignore, Reject
from kombu import Connection

import dure.broker  # noqa: F401  teaches kombu dure://
from dure.dead import DeadLetter
from dure.dead import read as read_letter
from dure.event import JobEvent
from dure.job import Job, State
from dure.wire import Announcement, Heartbeat, control_message, read_events, task_message

CHECKOUT = Path(__file__).parents[2]
DEADLINE = float(os.environ.get("TEST_DEADLINE", "20"))

app = Celery("harness", broker="memory://", backend=os.environ.get("TEST_RESULTS"))
app.conf.result_serializer = "json"
app.conf.worker_proc_alive_timeout = 20
if pool := os.environ.get("TEST_POOL"):
    app.conf.worker_pool = pool
if os.environ.get("TEST_EVENTS") == "no":
    app.conf.worker_send_task_events = False


class Unpicklable(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")
        self.lock = open(os.devnull)  # noqa: PTH123, SIM115


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")

    __repr__ = __str__


@app.task
def add(x: int, y: int = 2) -> int:
    """Add two numbers."""
    return x + y


@app.task
def fail(message: str) -> None:
    raise ValueError(message)


@app.task
def fail_badly(how: str) -> None:
    if how == "unpicklable":
        raise Unpicklable("this", "that")
    if how == "unprintable":
        raise Unprintable
    raise RuntimeError("x" * 1_000_000)


@app.task
def give(what: str) -> Any:
    return {"object": object(), "large": "x" * 300_000, "nan": float("nan"), "none": None}[what]


class Builder:
    """Gives a workflow as a builder of Dure's does."""

    def __json__(self) -> dict[str, Any]:
        return {"$workflow": {"chain": [{"task": add.name, "args": [1, 2]}, {"task": add.name, "args": [10]}]}}


@app.task
def plan(what: str) -> Any:
    return {
        "builder": Builder(),
        "task": add.s(1, 2),
        "chain": add.s(1, 2) | add.s(10),
        "group": group(add.s(n, n) for n in range(2)),
        "chord": chord([add.s(1, 2)], noop.si()),
        "large": group(add.s(1, "x" * 300) for _ in range(1_000)),
        "too large": group(noop.s("x" * 1_000) for _ in range(10_000)),
    }[what]


@app.task(bind=True)
def become(self: Task, what: str) -> None:
    replacement = {
        "task": add.si(1, 2),
        "chain": chain(add.si(1, 2), add.s(10), add.s(100)),
        "group": group(add.si(n, n) for n in range(2)),
        "chord": chord([add.si(n, n) for n in range(2)], total.s()),
        "failing": chain(fail.si("no"), add.si(1, 2)),
        "failing chord": chord([fail.si("no"), add.si(1, 2)], total.s()),
        "again": become.si("task"),
    }[what]
    self.replace(replacement)


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(ignore_result=True)
def ignored() -> int:
    return 1


@app.task(bind=True)
def retry_twice(self: Task) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0.1, exc=KeyError("again"))
    return self.request.retries


@app.task(bind=True)
def attempts(self: Task, fail_times: int) -> int:
    if self.request.retries < fail_times:
        raise OSError("flaky")
    return self.request.retries


@app.task
def raise_ignore() -> None:
    raise Ignore


@app.task
def raise_reject() -> None:
    raise Reject("no", requeue=False)


@app.task
def call(queue: str) -> str:
    return add.apply_async((1,), queue=queue).id


@app.task
def die_once(marker: str) -> str:
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@app.task
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def note(path: str, seconds: float = 0.0) -> str:
    """Leaves a line for each run."""
    with Path(path).open("a") as file:
        file.write("run\n")
    time.sleep(seconds)
    return "noted"


@app.task
def note_until(path: str, end: str) -> str:
    """As `note`, and ends when the file `end` is there."""
    note(path)
    await_file(end)
    return "noted"


@app.task
def die_at(path: str) -> None:
    """Kills its process as soon as the file is there."""
    await_file(path)
    os.kill(os.getpid(), signal.SIGKILL)


def await_file(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


@app.task
def act(path: str, *steps: str) -> str:
    """One step for each run."""
    with Path(path).open("a+") as file:
        file.write("run\n")
        file.seek(0)
        step = steps[len(file.readlines()) - 1]
    if step == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if step == "fail":
        raise OSError("flaky")
    return step


@app.task
def leave() -> None:
    raise SystemExit(3)


@app.task
def noop() -> None:
    pass


@app.task
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@dataclass
class Client:
    """Submits as Dure's client does, and reads the recorder's queue."""

    url: str
    seen: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reconnect()

    def reconnect(self) -> None:
        self.connection = Connection(self.url)
        self.channel = self.connection.channel()

    def submit(self, name: str, *args: Any, queue: str = "celery", times: int = 1, **options: Any) -> str:
        job = Job(id=str(uuid.uuid4()), task=f"{app_name()}.{name}", args=list(args), queue=queue, **options)
        message = task_message(job)
        headers = message.headers | ({"eta": datetime.fromtimestamp(job.eta, UTC).isoformat()} if job.eta else {})
        for _ in range(times):
            self.connection.Producer(self.channel).publish(
                message.body, exchange="", routing_key=queue, headers=headers, retry=False, **_plain(message)
            )
        return job.id

    def control(self, method: str, **arguments: Any) -> None:
        """A broadcast to the workers, as the gateway sends it."""
        message = control_message(method, arguments, expires_at=time.time() + 10)
        self.connection.Producer(self.channel).publish(
            message.body, exchange=message.exchange, headers=message.headers, **_plain(message)
        )

    def read(self) -> None:
        while message := self.channel.basic_get("dure.events", no_ack=True):
            body = message.body if isinstance(message.body, bytes) else message.body.encode()
            self.seen += read_events(body)

    def until(self, found: Callable[[], Any], what: str = "what was waited for") -> Any:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            try:
                self.read()
            except (*self.connection.channel_errors, *self.connection.connection_errors):
                self.reconnect()  # the queue is not there yet, or was cut off
            if result := found():
                return result
            time.sleep(0.02)
        raise AssertionError(f"{what} did not come; seen: {self.seen[-10:]}")

    def events(self, job_id: str) -> list[JobEvent]:
        return [e for e in self.seen if isinstance(e, JobEvent) and e.job_id == job_id]

    def end(self, job_id: str) -> JobEvent:
        """The event that ended the job."""
        return self.until(lambda: next((e for e in self.events(job_id) if e.state.final), None), "the end")

    def event(self, job_id: str, state: State, attempt: int = 1) -> JobEvent:
        return self.until(
            lambda: next((e for e in self.events(job_id) if e.state is state and e.attempt == attempt), None),
            f"{state} of attempt {attempt}",
        )

    def dead(self, job_id: str, reason: str) -> DeadLetter:
        """The dead letter of the job; others are dropped on the way to it."""

        def found() -> DeadLetter | None:
            while message := self.channel.basic_get("dure.dead", no_ack=True):
                body = message.body if isinstance(message.body, bytes) else message.body.encode()
                letter = read_letter(body, message.headers, message.delivery_info["routing_key"])
                if letter.job_id == job_id:
                    return letter
            return None

        letter: DeadLetter = self.until(found, "the dead letter")
        assert letter.reason == reason
        return letter

    def announcements(self) -> list[Announcement]:
        return [e for e in self.seen if isinstance(e, Announcement)]

    def heartbeats(self) -> list[Heartbeat]:
        return [e for e in self.seen if isinstance(e, Heartbeat)]

    def depth(self, queue: str) -> int:
        with self.connection.channel() as channel:
            return channel.queue_declare(queue, passive=True).message_count

    def close(self) -> None:
        self.connection.release()


def app_name() -> str:
    return "tests.integration.worker_harness"


def _plain(message: Any) -> dict[str, Any]:
    return {name: value for name, value in message.properties.items() if name != "delivery_mode"}


@dataclass
class Worker:
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(DEADLINE)


@contextlib.contextmanager
def worker(client: Client, folder: Path, *argv: str, stock: bool = False, **env: str) -> Iterator[Worker]:
    """A worker process that is ready; whatever happens, it is gone afterwards."""
    log = folder / f"worker-{uuid.uuid4().hex[:6]}.log"
    module = "tests.integration.worker_harness" if not stock else "celery"
    head = [] if not stock else ["-A", app_name(), "-b", client.url, "worker"]
    command = [sys.executable, "-m", module, *head, "-l", "INFO", "--without-mingle", "--without-gossip", *argv]
    environment = os.environ | {"PYTHONPATH": f"{CHECKOUT / 'src'}:{CHECKOUT}", "TEST_BROKER": client.url} | env
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        client.until(lambda: b" ready." in log.read_bytes() or process.poll() is not None, "a ready worker")
        assert process.poll() is None, log.read_text()
        yield Worker(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def main() -> int:
    from dure.settings import Settings
    from dure.worker.adopt import adopt
    from dure.worker.load import load
    from dure.worker.run import run

    settings = Settings(_env_file=None)
    if delay := os.environ.get("TEST_DELAY_SUCCESS"):
        _delay_events(b"task-succeeded", float(delay))
    found = load(app_name())
    adopt(found, settings, broker_url=os.environ["TEST_BROKER"])
    return run(found, settings, sys.argv[1:])


def _delay_events(kind: bytes, seconds: float) -> None:
    """A broker that takes its time to confirm events of this type."""
    from dure.worker.outbox import Event, Outbox

    send = Outbox._send

    def delayed(self: Outbox, message: Event) -> None:
        if kind in message.body:
            time.sleep(seconds)
        send(self, message)

    Outbox._send = delayed


if __name__ == "__main__":
    sys.exit(main())
