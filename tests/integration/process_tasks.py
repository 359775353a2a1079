"""Tasks of the harness's application that run in processes: `worker(…, "-P", "asyncio", "-I", MODULE)`."""

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

from celery import Task, signals
from celery.exceptions import SoftTimeLimitExceeded
from kombu.asynchronous import get_event_loop

import dure
from tests.integration.aio_tasks import MODULE as OTHERS
from tests.integration.aio_tasks import task
from tests.integration.worker_harness import add, app, app_name

MODULE = f"{OTHERS},tests.integration.process_tasks"

app.conf.dure_processes = int(os.environ.get("TEST_PROCESSES", "2"))
if threads := os.environ.get("TEST_THREADS"):
    app.conf.dure_threads = int(threads)
if names := os.environ.get("TEST_PROCESS_TASKS"):
    app.conf.dure_process_tasks = [f"{app_name()}.{name}" for name in names.split()]

if broken := os.environ.get("TEST_BROKEN"):
    signals.worker_process_init.connect(lambda **_: Path(broken).exists() and os._exit(3), weak=False)

IN_PROCESS = {"pool": "process"}


@task(dure=IN_PROCESS)
def cpu_where() -> list[int]:
    return [os.getpid(), os.getppid()]


@task()
def named_where() -> list[int]:
    return [os.getpid(), os.getppid()]


@task(dure={"pool": "thread"})
def named_thread() -> list[int]:
    return [os.getpid(), os.getppid()]


@task()
async def aio_where() -> list[int]:
    return [os.getpid(), os.getppid()]


@task(dure=IN_PROCESS)
def cpu_spin(folder: str, name: str = "spin") -> str:
    """Computes until it is told to end; leaves its process's id for each run."""
    with (Path(folder) / name).open("a") as file:
        file.write(f"{os.getpid()}\n")
    end = Path(folder) / f"{name}.end"
    while not end.exists():
        sum(range(10_000))
    return "spun"


@task(dure=IN_PROCESS, soft_time_limit=2.0)
def cpu_soft() -> str:
    try:
        while True:
            sum(range(10_000))
    except SoftTimeLimitExceeded:
        return "in time"


@task(dure=IN_PROCESS)
def cpu_die_once(marker: str) -> str:
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@task(dure=IN_PROCESS)
def cpu_call(queue: str) -> str:
    return add.apply_async((40,), queue=queue).id


@task(dure=IN_PROCESS, bind=True)
def cpu_retry(self: Task) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0.1, exc=KeyError("again"))
    return self.request.retries


@task(dure=IN_PROCESS)
def cpu_fail(message: str) -> None:
    raise ValueError(message)


@task(dure=IN_PROCESS)
def cpu_leave() -> None:
    raise SystemExit(3)


@task(dure=IN_PROCESS)
def cpu_tell() -> str:
    dure.emit("token")
    dure.progress(1, 2, "half")
    print("a line")
    return "told"


@task(dure=IN_PROCESS)
def cpu_clean() -> dict[str, Any]:
    """What a process must not have from its worker, and a loop of its own."""

    async def own() -> int:
        await asyncio.sleep(0)
        return 1

    return {
        "hub": get_event_loop() is not None,
        "main": threading.current_thread() is threading.main_thread(),
        "wakeup": signal.set_wakeup_fd(-1),
        "own": asyncio.run(own()),
    }


@task(dure=IN_PROCESS, soft_time_limit=0.5)
async def cpu_async(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@task(dure=IN_PROCESS)
def cpu_memory() -> None:
    raise MemoryError("too large")


@task()
def thread_memory() -> None:
    raise MemoryError("too large")


@task()
async def aio_memory() -> None:
    raise MemoryError("too large")
