"""Processes for tasks that compute: Celery's own prefork pool, turned by an event loop of kombu's in a thread.

    worker's loop      lane ─▶ submit                                          slot is free
    this thread                  ╰─▶ AsynPool ─▶ accepted, limits, killed, ended ─▶ callbacks ─╯
    process                              ╰─▶ Celery's tracer: result stored ─╯

So time limits, termination, lost workers and the replacing of processes are Celery's, and its callbacks come from a
thread beside the worker's loop, as those of sync tasks do.

The thread lives as long as the pool, for two reasons. A process is forked where no asyncio loop runs, and it dies with
the thread that forked it (Linux's parent death signal), not with a supervisor that ends earlier. Each process has pipes
of its own, so one that is killed leaves no lock and no half of a message to others. billiard's blocking pool has
neither.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import sleep
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.pool import RUN
from celery import signals
from celery.concurrency.prefork import TaskPool as Prefork
from celery.utils.log import get_logger
from kombu.asynchronous import Hub, set_event_loop

from dure.worker import log
from dure.worker.aio.attempt import Attempt

_GRACE = 5.0  # seconds that a terminated process has before it is killed
_PAUSE = 0.1
# Without a job between them. Celery's own limit, 100 in a second, is never reached.
_RESTARTS = 10
_RESTARTS_WITHIN = 120.0

_logger = get_logger("celery.pool")


class Processes:
    """So many as there are slots; whoever submits sees to it that there are no more attempts than that.

    `on_broken` is called, in the pool's thread, when processes end so fast that Celery gives up.
    """

    def __init__(self, slots: int, pool: Any, on_broken: Callable[[], object]) -> None:
        options = {
            **pool.options,
            "threads": False,
            "semaphore": None,
            "sched_strategy": "fair",
            "max_restarts": _RESTARTS,
            "max_restart_freq": _RESTARTS_WITHIN,
        }
        self._prefork: Any = Prefork(slots, putlocks=False, forking_enable=pool.forking_enable, app=pool.app, **options)
        self._on_broken = on_broken
        self._calls: deque[Callable[[], object]] = deque()
        self._is_over = False

    def start(self) -> None:
        """Forks, here and now: before there are threads and a loop that runs."""
        self._prefork.start()
        self._pool = self._prefork._pool
        self._hub = Hub()
        self._prefork.register_with_event_loop(self._hub)
        self._thread = threading.Thread(target=self._turn, name="dure-processes", daemon=True)
        self._thread.start()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in [*self._pool._pool]]

    def submit(self, attempt: Attempt) -> None:
        """Its `call` is a partial of what can be pickled; `free` is called, in the pool's thread, when it is over."""
        self.call(self._submit, attempt)

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """In the pool's thread, and in order; at once where this is it."""
        if threading.current_thread() is self._thread:
            function(*args)
            return
        self._calls.append(partial(function, *args))
        self._hub.call_soon(self._run_calls)

    def terminate_job(self, pid: int, signum: Any) -> None:
        """From the pool's thread, where it is known that the process still has that job."""
        self._prefork.terminate_job(pid, signum)

    def restart(self) -> None:
        self.call(self._prefork.restart)

    def stop(self) -> None:
        """Warm: once nothing runs any more."""
        self._leave(self._join)
        self._thread.join()

    def terminate(self) -> None:
        """Cold."""
        self._leave(self._pool.terminate)
        self._thread.join(_GRACE)
        for pid in self.pids if self._thread.is_alive() else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._thread.join(_GRACE)

    # In the pool's thread.

    def _turn(self) -> None:
        while not self._is_over:
            try:
                self._hub.run_once()
            except Exception:
                _logger.exception("Error in the pool of processes")
                sleep(_PAUSE)
            if self._pool._state != RUN and not self._is_over:
                self._is_over = True
                log.processes_broken(_RESTARTS, _RESTARTS_WITHIN)
                self._on_broken()
        self._hub.close()

    def _run_calls(self) -> None:
        while self._calls:
            call = self._calls.popleft()
            try:
                call()
            except Exception:
                _logger.exception("Error in the pool of processes")

    def _submit(self, attempt: Attempt) -> None:
        call: Any = attempt.call
        try:
            if attempt.is_over or attempt.is_revoked():
                attempt.free()
                return
            attempt.remote = self._prefork.apply_async(
                call.func,
                call.args,
                call.keywords,
                accept_callback=partial(_accept, attempt),
                callback=partial(_end, attempt, attempt.on_end),
                error_callback=partial(_end, attempt, attempt.on_error),
                timeout_callback=attempt.on_timeout,
                soft_timeout=attempt.soft_limit,
                timeout=attempt.hard_limit,
                correlation_id=attempt.id,
            )
        except Exception:
            _end(attempt, attempt.on_error, ExceptionInfo())
            return
        if attempt.remote is None:  # it came while the pool ends, and goes back to its queue
            attempt.free()

    def _leave(self, how: Callable[[], object]) -> None:
        def leave() -> None:
            try:
                how()
            finally:
                self._is_over = True

        self.call(leave)

    def _join(self) -> None:
        # Celery's own `stop` would meanwhile turn the worker's loop from another thread.
        self._pool.close()
        self._pool.join()


def _accept(attempt: Attempt, pid: int, accepted_at: float) -> None:
    attempt.is_started = True
    if attempt.on_accepted is not None:
        try:
            attempt.on_accepted(pid, accepted_at)
        except Exception:
            _logger.exception("The start of task %s[%s] could not be told", attempt.name, attempt.id)


def _end(attempt: Attempt, tell: Callable[..., object] | None, outcome: Any) -> None:
    if attempt.is_over:
        return
    try:
        if tell is not None:
            tell(outcome)
    except BaseException:
        _logger.exception("The end of task %s[%s] could not be told", attempt.name, attempt.id)
    finally:
        attempt.is_over, attempt.remote = True, None
        attempt.free()


def _forget_loop(**_: Any) -> None:
    """In a new process: the worker's loop is not its own, and its signals are not the worker's."""
    set_event_loop(None)
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)


signals.worker_process_init.connect(_forget_loop, dispatch_uid="dure.worker.aio.processes")
