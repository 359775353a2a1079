"""Finds who holds the asyncio loop up: a thread calls the loop, and looks at its stack when it does not answer.

    thread   call ─── limit passes ─── warning with job and stack ──── how long it took
    loop       ┄┄┄┄┄┄┄┄┄ time.sleep(2) in a coroutine ┄┄┄┄┄┄┄┄┄┄▶ answer

The job is found by the context of the asyncio task that runs, where Celery's stacks live, so it is also known in what a
coroutine started with `asyncio.create_task`.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from contextvars import Context
from types import CodeType, FrameType
from typing import Any, NamedTuple

from celery import _state

from dure.worker import log
from dure.worker.aio.hub import LoopHub
from dure.worker.health.health import Health

_CALLS_IN_LIMIT = 5
_CALL_EVERY = 1.0  # seconds, where no limit is set
_MOST_FRAMES = 25

# What lies between the loop and the application. A block outside of the loop's turns is the worker's own.
_FLOOR = {
    "dure",
    "celery",
    "kombu",
    "vine",
    "amqp",
    "asyncio",
    "uvloop",
    "threading",
    "greenlet",
    "contextlib",
    "runpy",
}
_TURNS: tuple[CodeType, ...] = (LoopHub._turn.__code__, LoopHub.run.__code__)
_START = "celery.bootsteps"


class Job(NamedTuple):
    id: str
    task: str


class LoopWatch:
    def __init__(self, pool: Any, health: Health, limit: float) -> None:
        self._loop: asyncio.AbstractEventLoop = pool.loop
        self._coroutines = pool.coroutines.running
        self._health = health
        self._limit = limit
        self._thread: int = pool.loop_thread  # known before the first answer: the first job may hold the loop up
        self._answered = threading.Event()
        self._answered_at = 0.0

    def start(self) -> None:
        self._health.loop_lag = 0.0  # nobody has waited yet; a worker may consume before the first answer
        threading.Thread(target=self._run, name="dure-loop-watch", daemon=True).start()

    def _run(self) -> None:
        pause = self._limit / _CALLS_IN_LIMIT if self._limit else _CALL_EVERY
        while True:
            time.sleep(pause)
            called = time.monotonic()
            self._answered.clear()
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # it is closed
                return
            if not self._answered.wait(self._limit or None):
                self._tell_block(called)
            self._health.loop_lag = round(self._answered_at - called, 4)

    def _answer(self) -> None:
        self._answered_at = time.monotonic()
        self._answered.set()

    def _tell_block(self, called: float) -> None:
        job, frames = self._job(), stack_of(sys._current_frames().get(self._thread))
        # Without either it is the worker, which starts, connects or ends, and nobody waits for it.
        is_felt = bool(frames or self._coroutines)
        if is_felt:
            self._health.loop_blocks += 1
            log.loop_blocked(job, self._limit, frames)
        while not self._answered.wait(self._limit):
            self._health.loop_lag = round(time.monotonic() - called, 4)
            if self._loop.is_closed():
                return
        if is_felt:
            log.loop_turns_again(job, self._answered_at - called)

    def _job(self) -> Job | None:
        try:
            task = asyncio.current_task(self._loop)
            context = _context(task) if task is not None else None
            if context is None:
                return None
            running: Any = context[_state._task_stack._items][-1]  # type: ignore[attr-defined]
            return Job(context[running.request_stack._items][-1].id, running.name)
        except (LookupError, AttributeError, RuntimeError):  # it goes on meanwhile
            return None


def _context(task: asyncio.Task[Any]) -> Context | None:
    if hasattr(task, "get_context"):  # from Python 3.12 on
        return task.get_context()  # type: ignore[no-any-return]
    return next((held for held in gc.get_referents(task) if isinstance(held, Context)), None)


def stack_of(frame: FrameType | None) -> list[str]:
    """From the task's own function to where it is now; empty where nothing of the application is called."""
    found: list[FrameType] = []
    while frame is not None and frame.f_code not in _TURNS:
        if frame.f_globals.get("__name__") == _START:
            return []
        found.append(frame)
        frame = frame.f_back
    while found and _package(found[-1]) in _FLOOR:
        found.pop()
    return [f"{f.f_code.co_filename}:{f.f_lineno} in {f.f_code.co_name}" for f in found[::-1]][-_MOST_FRAMES:]


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
