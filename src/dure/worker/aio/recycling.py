"""A worker that begins anew, after so many tasks or when it has grown: Celery's limits for a child, kept by the worker.

    consuming ── a limit is reached ──▶ draining ── nothing runs ──▶ warm shutdown ──▶ the same command once more
                                           │
                                           ╰── the connection is lost ──▶ consuming, until the next task ends

A worker that drains has cancelled its consumers, so the broker gives the next jobs to others. What it was given runs,
also what waits for a slot: a message that goes back counts as a delivery without an end. Remote control still answers,
and a job that runs can be revoked. The process then replaces itself: its id, its standard streams and whoever watches
over it stay.

After a lost connection the broker sends again what runs here. Only a worker that consumes can take it over, so the
drain is given up for a while.
"""

from __future__ import annotations

import atexit
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from billiard.compat import mem_rss
from celery import bootsteps, signals
from celery.apps.worker import Worker
from celery.platforms import EX_OK
from celery.worker import state
from celery.worker.consumer.tasks import Tasks

from dure.worker import log

_LOOK_SECONDS = 0.5
_STATM = Path("/proc/self/statm")
_PURGING = {"--purge", "--discard"}  # for the first start only


class Recycling:
    """The limits of one pool; `later` calls a function on the pool's loop after some seconds."""

    def __init__(
        self,
        tasks: int | None,
        kib: int | None,
        is_busy: Callable[[], bool],
        later: Callable[[float, Callable[[], object]], object],
    ) -> None:
        # A tenth less at random: workers that began together shall not drain together.
        self._tasks = tasks and tasks - random.randint(0, tasks // 10)  # noqa: S311  not for secrets
        self._kib = kib
        self._is_busy = is_busy
        self._later = later
        self._ended = 0
        self._looks = False
        self._consumer: Any = None
        self.is_draining = False
        self.is_over = False
        self.stays_down = False

    def attach(self, consumer: Any) -> None:
        """It is connected, and about to consume."""
        self._consumer = consumer
        self.is_draining = False

    def detach(self) -> None:
        self._consumer = None

    def ended(self, *, counts: bool) -> None:
        """A task left its slot; one that ran in a process of its own counts there."""
        self._ended += counts
        if self.is_draining:
            self._finish()
        elif self._tasks and self._ended >= self._tasks:
            self._drain(tasks=self._ended)
        elif self._kib and not self._looks:
            self._looks = True
            self._later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looks = False
        size = _resident_kib()
        if self._kib and size > self._kib:
            self._drain(memory_kib=size, limit_kib=self._kib)

    def _drain(self, **why: int) -> None:
        if self._consumer is not None and not self.is_draining:
            log.recycles(**why)
            self.is_draining = True
            self._consumer.call_soon(self._stop_consuming)

    def _stop_consuming(self) -> None:
        consumer = self._consumer
        if consumer is not None and self.is_draining:
            consumer.task_consumer.cancel()
            self._finish()

    def _finish(self) -> None:
        if self.is_over or self._consumer is None or self._is_busy():
            return
        if state.should_stop is None and state.should_terminate is None:  # else somebody ended the worker meanwhile
            self.is_over = True
            state.should_stop = EX_OK  # type: ignore[assignment]


class Recycler(bootsteps.StartStopStep):
    """Attaches the consumer to the pool's limits, and starts the process's command again when they say so."""

    name = "dure.worker.Recycler"
    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._recycling: Any = getattr(consumer.pool, "recycling", None)
        self._folder = Path.cwd()

    def include_if(self, consumer: Any) -> bool:
        return self._recycling is not None

    def create(self, consumer: Any) -> None:
        atexit.register(self._begin_anew)  # early, so that it comes last
        signals.worker_shutting_down.connect(self._stay_down, weak=False)

    def start(self, consumer: Any) -> None:
        self._recycling.attach(consumer)

    def stop(self, consumer: Any) -> None:
        self._recycling.detach()

    def _stay_down(self, **_: Any) -> None:
        """A signal asked for an end; the loop, in another thread perhaps, may be at its own just now."""
        self._recycling.stays_down = True

    def _begin_anew(self) -> None:
        if not self._recycling.is_over or self._recycling.stays_down:
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.chdir(self._folder)
        words = [word for word in sys.orig_argv[1:] if word not in _PURGING]
        os.execv(sys.executable, [sys.executable, *words])  # noqa: S606  that is the point


def install(worker: Any) -> None:
    """Only for a worker that is its process: one that is a part of a program must not replace that."""
    if isinstance(worker, Worker):
        worker.app.steps["consumer"].add(Recycler)


def _resident_kib() -> int:
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        return int(mem_rss())
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024
