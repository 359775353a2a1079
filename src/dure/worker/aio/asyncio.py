"""The pool, in a module of the name that Celery shows of it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import signals
from celery.concurrency.base import BasePool
from celery.platforms import EX_FAILURE
from celery.utils.log import get_logger
from celery.worker import state as worker_state
from kombu.asynchronous import get_event_loop

from dure.worker import log, task_options
from dure.worker.aio import bodies, bridge, home, names, together
from dure.worker.aio.attempt import Attempt, Over
from dure.worker.aio.hub import LoopHub
from dure.worker.aio.install import on_worker_init
from dure.worker.aio.lane import Lane
from dure.worker.aio.processes import Processes
from dure.worker.aio.recycling import Recycling

_GRACE = 5.0  # seconds that a cancelled coroutine has before it is given up
_THREADS_SETTING = "dure_threads"
_MOST_THREADS = 10_000  # the lane says how many run

_logger = get_logger("celery.pool")

signals.worker_init.connect(on_worker_init, dispatch_uid="dure.worker.aio")


class TaskPool(BasePool):
    """Coroutines on the consumer's loop, `limit` at once; sync tasks in threads, `dure_threads` at once, or where they
    say so in processes, `dure_processes` at once."""

    limit: int
    app: Any
    options: dict[str, Any]
    _state: Any

    signal_safe = False
    body_can_be_buffer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.coroutines = Lane(self.limit, self._start_coroutine)
        self.threads = Lane(self._threads_for(self.limit), self._start_thread)
        self._executor = ThreadPoolExecutor(_MOST_THREADS, "dure-task", initializer=together.join)
        self._soft_limit: float | None = self.options.get("soft_timeout")
        self._hard_limit: float | None = self.options.get("timeout")
        task_options.check(self.app)
        self.remote = Lane(task_options.processes(self.app), self._start_in_process)
        self.processes = Processes(self.remote.slots, self, self._on_broken) if self.remote.slots else None
        self._lanes: dict[str, Lane] = {}
        self._idle = asyncio.Event()
        self._hub: LoopHub | None = None
        tasks, kib = self.options.get("maxtasksperchild"), self.options.get("max_memory_per_child")
        self.recycling = Recycling(tasks, kib, lambda: self.is_busy, self._later) if tasks or kib else None

    # Celery's life of a pool.

    def on_start(self) -> None:
        hub = get_event_loop()
        if isinstance(hub, LoopHub):
            self._hub, self.loop, self.loop_thread = hub, hub.aio, threading.get_ident()
        else:  # a broker without an event loop
            self.loop, self.loop_thread = home.get_loop(), home.thread_id()
        if self.processes is not None:
            self.processes.start()

    def on_close(self) -> None:
        for lane in (self.coroutines, self.threads, self.remote):
            lane.waiting.clear()

    def on_stop(self) -> None:
        """Warm: what runs, ends."""
        if self.is_busy:
            self._turn_until(self._until_idle())
        self._executor.shutdown(cancel_futures=True)
        if self.processes is not None:
            self.processes.stop()

    def on_terminate(self) -> None:
        """Cold: coroutines are cancelled, and their messages go back."""
        self.on_close()
        tasks = [attempt.task for attempt in [*self.coroutines.running] if attempt.stop() and attempt.task]
        if tasks:
            self._turn_until(asyncio.wait(tasks, timeout=_GRACE))
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self.processes is not None:
            self.processes.terminate()

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Of a process. For others Celery also calls `terminate` on the attempt itself."""
        if self.processes is not None and pid != os.getpid():
            self.processes.terminate_job(pid, signal)

    def grow(self, n: int = 1) -> None:
        self._resize(self.limit + n)

    def shrink(self, n: int = 1) -> None:
        self._resize(max(1, self.limit - n))

    def restart(self) -> None:
        if self.processes is not None:
            self.processes.restart()

    @property
    def is_on_this_thread(self) -> bool:
        return self._hub is not None and threading.get_ident() == self.loop_thread

    @property
    def is_busy(self) -> bool:
        return bool(self.coroutines.running or self.threads.running or self.remote.running)

    def is_remote(self, name: str) -> bool:
        return self._lane_of(name) is self.remote

    def _get_info(self) -> dict[str, Any]:
        info = {
            **super()._get_info(),  # type: ignore[misc]
            "coroutines": {"slots": self.coroutines.slots, "running": len(self.coroutines.running)},
            "threads": {"slots": self.threads.slots, "running": len(self.threads.running)},
            "max-tasks-per-child": self.options.get("maxtasksperchild") or "N/A",
            "max-memory-per-child": self.options.get("max_memory_per_child") or "N/A",
        }
        if self.processes is not None:
            running = {"slots": self.remote.slots, "running": len(self.remote.running)}
            info["processes"] = {**running, "pids": self.processes.pids}
        return info

    # Attempts.

    def on_apply(  # type: ignore[override]
        self,
        target: Callable[..., Any],
        args: Any = (),
        kwargs: Any = None,
        *,
        callback: Callable[..., object] | None = None,
        accept_callback: Callable[..., object] | None = None,
        timeout_callback: Callable[..., object] | None = None,
        error_callback: Callable[..., object] | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        correlation_id: str = "",
        **_: Any,
    ) -> Attempt:
        attempt = Attempt(
            args[0],
            correlation_id,
            partial(target, *args, **kwargs or {}),
            accept_callback,
            callback,
            timeout_callback,
            error_callback,
            soft_timeout,
            timeout,
        )
        return self.take(attempt)

    def take(self, attempt: Attempt) -> Attempt:
        """Run it as soon as there is a slot."""
        lane = self._lane_of(attempt.name)
        attempt.stoppable = lane is self.coroutines
        attempt.is_remote = lane is self.remote
        attempt.soft_limit = attempt.soft_limit or self._soft_limit
        attempt.hard_limit = attempt.hard_limit or self._hard_limit
        attempt.free = partial(self._free_soon if attempt.is_remote else self._free, lane, attempt)
        if self._state == self.CLOSE:
            return attempt  # it came while the worker ends, and goes back to its queue
        if self.is_on_this_thread:
            lane.enter(attempt)
        else:
            self.loop.call_soon_threadsafe(lane.enter, attempt)
        return attempt

    def _lane_of(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            task = self.app.tasks[name]
            lane = self.coroutines if bodies.is_async(task) else self.threads
            if task_options.runs_in_process(self.app, task):
                lane = self.remote
            self._lanes[name] = lane
        return lane

    def _start_coroutine(self, attempt: Attempt) -> None:
        attempt.task = self.loop.create_task(self._run(attempt))
        if attempt.soft_limit:
            attempt.alarms.append(self.loop.call_later(attempt.soft_limit, attempt.exceed_soft_limit))
        if attempt.hard_limit:
            attempt.alarms.append(self.loop.call_later(attempt.hard_limit, self._exceed_hard_limit, attempt))

    def _start_thread(self, attempt: Attempt) -> None:
        def run() -> None:
            try:
                _attempt(attempt)
            finally:
                attempt.is_over = True
                if not self.loop.is_closed():
                    self.loop.call_soon_threadsafe(attempt.free)

        self._executor.submit(run)

    def _start_in_process(self, attempt: Attempt) -> None:
        assert self.processes is not None  # noqa: S101  for mypy
        self.processes.submit(attempt)

    def _on_broken(self) -> None:
        """No process starts any more: the worker ends, and what they had goes back."""
        worker_state.should_stop = EX_FAILURE  # type: ignore[assignment]
        self.loop.call_soon_threadsafe(self._give_back_remote)

    def _give_back_remote(self) -> None:
        for attempt in [*self.remote.waiting, *self.remote.running]:
            attempt.is_over = True
            attempt.free()

    async def _run(self, attempt: Attempt) -> None:
        try:
            await bridge.run(attempt, _attempt, attempt)
        finally:
            for alarm in attempt.alarms:
                alarm.cancel()
            attempt.is_over = True
            attempt.free()

    def _free(self, lane: Lane, attempt: Attempt) -> None:
        if lane.leave(attempt) and self.recycling is not None:
            self.recycling.ended(counts=lane is not self.remote)
        if not self.is_busy:
            self._idle.set()

    def _free_soon(self, lane: Lane, attempt: Attempt) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._free, lane, attempt)

    def _exceed_hard_limit(self, attempt: Attempt) -> None:
        task = attempt.task
        if task is None or attempt.body is None or not attempt.stop():
            return
        if attempt.on_timeout is not None:
            bridge.spawn(self.loop, attempt, attempt.on_timeout, False, attempt.hard_limit)
        self.loop.call_later(_GRACE, _give_up, attempt, task)

    def _threads_for(self, slots: int) -> int:
        """All slots where an application has no coroutines."""
        if (told := self.app.conf.get(_THREADS_SETTING)) is not None:
            return int(told)
        return names.threads() if bodies.has_async(self.app) else slots

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        self.loop.call_soon_threadsafe(self.loop.call_later, seconds, call)

    def _resize(self, slots: int) -> None:
        self.limit = slots
        self.coroutines.resize(slots)
        self.threads.resize(self._threads_for(slots))

    async def _until_idle(self) -> None:
        while self.is_busy:
            self._idle.clear()
            await self._idle.wait()

    def _turn_until(self, awaitable: Any) -> None:
        if self._hub is not None:
            self._hub.run(awaitable)
        else:
            asyncio.run_coroutine_threadsafe(_whole(awaitable), self.loop).result()


def _attempt(attempt: Attempt) -> None:
    """Run it, in a thread or in a greenlet of the loop's thread; Celery's `apply_target`, with an end of ours."""
    try:
        if attempt.is_over or attempt.is_revoked():
            return
        attempt.is_started = True
        if attempt.on_accepted is not None:
            attempt.on_accepted(os.getpid(), monotonic())
        if attempt.is_over:  # it was terminated before it began
            return
        outcome = attempt.call()
    except Over:
        return
    except Exception:
        _logger.exception("Task %s[%s] could not be run", attempt.name, attempt.id)
        return
    except BaseException as exc:
        if attempt.is_over:
            return
        outcome = _lost(exc)
    if attempt.is_over:
        return
    try:
        if attempt.on_end is not None:
            attempt.on_end(outcome)
    except Exception:
        _logger.exception("The end of task %s[%s] could not be told", attempt.name, attempt.id)


def _give_up(attempt: Attempt, task: asyncio.Task[Any]) -> None:
    if not task.done():
        log.coroutine_abandoned(attempt.id, attempt.name)


def _lost(exc: BaseException) -> ExceptionInfo:
    """As Celery tells of a task that leaves the interpreter."""
    try:
        raise WorkerLostError(repr(exc)) from exc  # noqa: TRY301  ExceptionInfo takes what is handled
    except WorkerLostError:
        return ExceptionInfo()


async def _whole(awaitable: Any) -> Any:
    return await awaitable
