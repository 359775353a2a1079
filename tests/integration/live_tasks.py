"""Tasks that tell while they run, for the application of the harness, and a client that hears them.

Workers take them with `-I tests.integration.live_tasks`.
"""

import asyncio
import contextvars
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery import Task
from celery.signals import worker_ready
from celery.utils.log import get_task_logger

import dure
from dure.entry import Entry, EntryKind, Told
from dure.event import JobEvent
from dure.watch import job_key
from dure.wire import ENTRIES_KEY, EVENT_EXCHANGE, read_events
from tests.integration.worker_harness import Client, app, app_name

MODULE = "tests.integration.live_tasks"
LOGGER = logging.getLogger("shop.orders")


@worker_ready.connect
def say_ready(**_: Any) -> None:
    print("tasks are ready.")  # a worker that logs warnings only does not say so


def task(function: Any = None, **options: Any) -> Any:
    def register(function: Any) -> Any:
        return app.task(name=f"{app_name()}.{function.__name__}", **options)(function)

    return register if function is None else register(function)


@task
def talk(times: int) -> str:
    for n in range(times):
        dure.emit({"n": n})
    return "said"


@task
def talk_later(start: str, times: int) -> None:
    while not Path(start).exists():
        time.sleep(0.01)
    talk(times)


@task
def talk_twice(start: str, times: int) -> None:
    """Once at its begin, and once more when it is told to."""
    talk(times)
    talk_later(start, times)


@task
def crowd(threads: int, times: int) -> None:
    def speak(name: int) -> None:
        for n in range(times):
            dure.emit([name, n])

    members = [threading.Thread(target=contextvars.copy_context().run, args=(speak, name)) for name in range(threads)]
    for member in members:
        member.start()
    for member in members:
        member.join()


@task
def talk_async(times: int) -> None:
    async def speak(name: str) -> None:
        for n in range(times):
            dure.emit([name, n])
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(speak("a"), speak("b"), asyncio.to_thread(dure.emit, ["c", 0]))

    asyncio.run(all_of_them())


@task
def count(to: int) -> None:
    for n in range(to):
        dure.progress(n + 1, to, f"step {n + 1}", unit="page")


@task
def log_lines(secret: str) -> None:
    LOGGER.debug("too quiet")
    LOGGER.info("order %s", 7)
    get_task_logger("shop.mail").info("mail sent")
    LOGGER.warning("cannot reach amqp://shop:%s@broker/", secret)
    try:
        int(secret)
    except ValueError:
        LOGGER.exception("it failed")
    logging.getLogger("kombu").error("of the machinery")


@task
def log_much(times: int) -> None:
    for n in range(times):
        LOGGER.info("line %d", n)


@task(bind=True)
def tell_state(self: Task) -> None:
    self.update_state(state="PROGRESS", meta={"current": 3, "total": 10, "status": "transcribing", "file": "a.wav"})


@task(bind=True)
def speak_and_retry(self: Task) -> int:
    dure.emit(f"attempt {self.request.retries}")
    if self.request.retries < 1:
        raise self.retry(countdown=0.05)
    return self.request.retries


@task
def speak_and_fail() -> None:
    dure.emit("last words")
    raise ValueError("no")


@task
def speak_and_die(marker: str) -> str:
    """Speaks, is killed when its first words are heard, and speaks again."""
    dure.emit("first")
    if not Path(marker).exists():
        while not Path(f"{marker}.heard").exists():
            time.sleep(0.01)
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    dure.emit("second")
    return "survived"


@task
def call_in_place() -> None:
    dure.emit("outer")
    talk.apply((2,))
    talk(1)
    dure.emit("outer again")


@task
def speak_in_a_bare_thread() -> str:
    said: list[str] = []

    def speak() -> None:
        try:
            dure.emit(1)
        except RuntimeError as exc:
            said.append(str(exc))

    thread = threading.Thread(target=speak)
    thread.start()
    thread.join()
    return said[0]


@task
def speak_in_a_fork() -> str:
    reading, writing = os.pipe()
    dure.emit("parent")
    child = os.fork()
    if child == 0:
        try:
            dure.emit("child")
        except RuntimeError as exc:
            os.write(writing, str(exc).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    dure.emit("parent again")
    return os.read(reading, 10_000).decode()


@task
def emit_too_much(what: str) -> None:
    dure.emit({"large": "x" * 300_000, "object": object()}[what])


class Audience(Client):
    """Reads a queue of its own, which is bound to all that workers tell; `watch` binds another to one job."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._hear("test.all", ENTRIES_KEY)
        self._hear("test.all", "task.#")

    def _hear(self, queue: str, key: str) -> None:
        self.channel.exchange_declare(exchange=EVENT_EXCHANGE, type="topic", durable=True, auto_delete=False)
        self.channel.queue_declare(queue=queue, durable=True, auto_delete=False)
        self.channel.queue_bind(queue=queue, exchange=EVENT_EXCHANGE, routing_key=key)

    def watch(self, job_id: str) -> None:
        self._hear("test.one", job_key(job_id))

    def read(self) -> None:
        self.seen += self._read("test.all")

    def watched(self) -> list[Any]:
        return list(self._read("test.one"))

    def _read(self, queue: str) -> Iterator[Any]:
        while message := self.channel.basic_get(queue, no_ack=True):
            yield from read_events(message.body if isinstance(message.body, bytes) else message.body.encode())

    def told(self, job_id: str) -> list[Told]:
        return [told for told in self.seen if isinstance(told, Told) and told.job_id == job_id]

    def entries(self, job_id: str, kind: EntryKind | None = None) -> list[Entry]:
        """What came before the job's end, of all attempts; checked to be numbered without a gap or a repeat."""
        self.end(job_id)
        found: list[Entry] = []
        run = n = 0
        for event in self.seen:
            if isinstance(event, JobEvent) and event.job_id == job_id and event.state.final:
                break
            if isinstance(event, Told) and event.job_id == job_id:
                if event.run > run:
                    run, n = event.run, 0
                assert (event.run, event.first.n) == (run, n + 1)
                n = event.last.n
                found += event.entries
        assert sum(len(told.entries) for told in self.told(job_id)) == len(found), "entries came after the end"
        return [entry for entry in found if kind in (None, entry.kind)]

    def output(self, job_id: str) -> list[Any]:
        return [entry.body for entry in self.entries(job_id, EntryKind.OUTPUT)]
