"""An attempt begins before its task runs, and ends after it: Celery's signals say when, in every pool.

They are sent in the process, thread or greenlet that runs the task, before the pool hands the outcome back. So what a
task told is confirmed before its closing event leaves, in stock workers as in ours. Ours also flushes where the task's
body ends (see `body`), before the result is stored.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

from celery import Celery
from celery._state import get_current_task
from celery.signals import celeryd_after_setup, task_postrun, task_prerun

from dure.entry import Position
from dure.settings import Settings
from dure.worker.aio import bridge
from dure.worker.live import capture, states
from dure.worker.live.attempt import Attempt, Eager, Here, current
from dure.worker.live.cancelling import forget
from dure.worker.live.emitter import Emitter
from dure.worker.live.line import Line

_JOINED = "_dure_attempt"

# The place of the last entry of the attempt that ended here last; None where it told nothing, or not all has arrived.
last_told: ContextVar[Position | None] = ContextVar("dure_last_told", default=None)


class _Process:
    """What the attempts of a process share."""

    lines = 1000
    emitter: Emitter | None = None
    lock = threading.Lock()

    def emitter_of(self, app: Celery) -> Emitter:
        if self.emitter is None or self.emitter.is_lost:  # lost in a fork
            with self.lock:
                if self.emitter is None or self.emitter.is_lost:
                    self.emitter = Emitter(Line(app))
        return self.emitter


_process = _Process()


def install(settings: Settings) -> None:
    """From now on, tasks in this process, and in those that it forks, can be watched."""
    _process.lines = settings.capture_lines
    follow()

    def prepare(instance: Any = None, **_: Any) -> None:
        states.wrap(instance.app)
        if settings.capture_level != "off":
            capture.listen(settings.capture_level.upper())

    celeryd_after_setup.connect(prepare, weak=False, dispatch_uid="dure.worker.live")


def follow() -> None:
    task_prerun.connect(_begin, dispatch_uid="dure.worker.live.begin")
    task_postrun.connect(_end, dispatch_uid="dure.worker.live.end")


def join() -> Here:
    """The attempt at the task that runs here, where nobody told us of it; it will be ended like others."""
    task: Any = get_current_task()
    if task is None:
        return None
    if task.request.called_directly or task.request.is_eager:
        return Eager(None)
    # With the request, too: a coroutine's context is a copy, and what is set in it is not seen outside of it.
    here = getattr(task.request, _JOINED, None)
    if here is None:
        follow()
        here = _begun(task)
        setattr(task.request, _JOINED, here)
    current.set(here)
    return here


def flush() -> None:
    """Wait until what the current attempt told has been confirmed."""
    here = current.get()
    if isinstance(here, Attempt):
        _flush(here)


def _begin(task: Any = None, **_: Any) -> None:
    current.set(Eager(current.get()) if task.request.is_eager else _begun(task))


def _begun(task: Any) -> Here:
    request = task.request
    job_id, root_id, worker = request.id, request.root_id, request.hostname
    try:
        f"{job_id}{task.name}{root_id}{worker}".encode()
    except UnicodeEncodeError:  # nobody could read what it tells
        return Eager(None)
    emitter = _process.emitter_of(task.app)
    is_first = _is_first(request)
    return Attempt(
        emitter,
        job_id,
        task=task.name,
        root_id=root_id,
        worker=worker,
        lines=_process.lines,
        is_first=is_first,
    )


def _is_first(request: Any) -> bool:
    """Whether nobody can have begun the job before."""
    counted = (request.retries, getattr(request, "dure_attempt", 0), getattr(request, "dure_deliveries", 0))
    return not (any(counted) or (request.delivery_info or {}).get("redelivered", True))


def _end(task_id: Any = None, task: Any = None, **_: Any) -> None:
    here = current.get() or getattr(task.request, _JOINED, None)
    if isinstance(here, Attempt):
        if here.job_id == task_id:
            current.set(None)
            forget(here.job_id)
            if _flush(here, close=True) and here.accepted:
                last_told.set(Position(here.run, here.accepted))
    elif here is not None:
        current.set(here.outer)


def _flush(here: Attempt, *, close: bool = False) -> bool:
    if here.is_confirmed:  # which a thread need not be asked
        return here.sink.flush(here, close=close)
    return bridge.aside(here.sink.flush, here, close=close)
