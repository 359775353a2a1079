"""Coroutine tasks of the harness's application: `worker(client, folder, "-P", "asyncio", "-I", MODULE)`."""

import asyncio
import contextvars
import os
import threading
import time
from pathlib import Path
from typing import Any

from celery import Task, current_task, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from tests.integration.worker_harness import app, app_name

MODULE = "tests.integration.aio_tasks"

_colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")
_together: set[str] = set()
_kept: list[bytearray] = []


def task(**options: Any) -> Any:
    """A task of the harness: `Client.submit` knows it by its function's name."""
    return lambda body: app.task(name=f"{app_name()}.{body.__name__}", **options)(body)


@task()
async def aio_add(x: int, y: int = 2) -> int:
    await asyncio.sleep(0)
    return x + y


@task()
async def aio_fail(message: str) -> None:
    await asyncio.sleep(0)
    raise ValueError(message)


@task()
async def aio_nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"


@task()
def thread_spin(folder: str, name: str) -> None:
    """Runs until it is told to end; leaves a file when it begins."""
    (Path(folder) / name).touch()
    while not (Path(folder) / f"{name}.end").exists():
        time.sleep(0.01)


@task()
async def aio_spin(folder: str, name: str) -> None:
    (Path(folder) / name).touch()
    while not (Path(folder) / f"{name}.end").exists():
        await asyncio.sleep(0.01)


@task()
async def aio_meet(others: int) -> int:
    """Ends when so many are here at once."""
    me = current_task.request.id
    _together.add(me)
    while len(_together) < others:
        await asyncio.sleep(0.01)
    return others


@task(bind=True)
async def aio_self(self: Task) -> dict[str, Any]:
    """Who it is, before and after others ran, in a child coroutine and in a thread."""

    async def child() -> str:
        await asyncio.sleep(0.01)
        return current_task.request.id

    before = self.request.id
    _colour.set(before)
    await asyncio.sleep(0.05)
    return {
        "before": before,
        "after": self.request.id,
        "current": current_task.request.id,
        "child": await asyncio.create_task(child()),
        "thread": await asyncio.to_thread(lambda: current_task.request.id),
        "colour": _colour.get(),
        "where": threading.current_thread() is threading.main_thread(),
    }


@task(bind=True)
async def aio_headers(self: Task) -> dict[str, Any] | None:
    return self.request.headers


@task()
def where_sync() -> bool:
    return threading.current_thread() is threading.main_thread()


@task(bind=True)
async def aio_retry(self: Task) -> int:
    await asyncio.sleep(0)
    if self.request.retries < 2:
        raise self.retry(countdown=0.1, exc=KeyError("again"))
    return self.request.retries


@task(bind=True, autoretry_for=(OSError,), default_retry_delay=0.1, max_retries=3)
async def aio_autoretry(self: Task, fail_times: int) -> int:
    await asyncio.sleep(0)
    if self.request.retries < fail_times:
        raise OSError("flaky")
    return self.request.retries


@task()
async def aio_attempts(fail_times: int) -> int:
    await asyncio.sleep(0)
    if current_task.request.retries < fail_times:
        raise OSError("flaky")
    return current_task.request.retries


@task()
async def aio_ignore() -> None:
    await asyncio.sleep(0)
    raise Ignore


@task()
async def aio_reject() -> None:
    await asyncio.sleep(0)
    raise Reject("no", requeue=False)


@task()
async def aio_leave() -> None:
    await asyncio.sleep(0)
    raise SystemExit(3)


@task()
async def aio_cancelled() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@task()
async def aio_tidy(path: str, seconds: float = 60.0) -> str:
    """Leaves a line for how it ended."""
    try:
        await asyncio.sleep(seconds)
    except SoftTimeLimitExceeded:
        Path(path).write_text("soft")
        return "in time"
    except asyncio.CancelledError:
        Path(path).write_text("cancelled")
        raise
    return "rested"


@task(soft_time_limit=2.0)
async def aio_soft(path: str) -> str:
    return await aio_tidy(path)


@task()
async def aio_stubborn(seconds: float) -> str:
    """Does not heed its cancellation."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            continue
    return "too late"


@task()
async def aio_grow(mib: int) -> None:
    _kept.append(bytearray(os.urandom(1024)) * (mib << 10))


@task(acks_late=False)
async def aio_early(path: str) -> None:
    Path(path).touch()
    await asyncio.sleep(60)


@task(rate_limit="2/s")
async def aio_rated() -> float:
    return time.time()


@task()
async def aio_call(n: int) -> str:
    return aio_add.delay(n).id


@task()
async def aio_on_error(request: Any, exc: Exception, traceback: Any, path: str) -> None:
    await asyncio.sleep(0)
    Path(path).write_text(f"{request.id} {exc} {threading.current_thread() is threading.main_thread()}")


@task()
async def aio_call_failing(path: str) -> str:
    return aio_fail.apply_async(("no",), link_error=aio_on_error.s(path)).id


def _note(name: str) -> Any:
    def receive(sender: Any = None, **_: Any) -> None:
        if (path := os.environ.get("TEST_SIGNALS")) and sender.name.endswith(".aio_add"):
            with Path(path).open("a") as file:
                file.write(f"{name}\n")

    return receive


if "TEST_SIGNALS" in os.environ:
    for name in ("task_prerun", "task_success", "task_postrun"):
        getattr(signals, name).connect(_note(name), weak=False)
