"""What a task tells while it runs. `dure.emit` and `dure.progress` are these two.

    task's code ── emit, progress ──╮
    logging ────── capture ─────────┼──▶ Attempt ──▶ Emitter ──▶ Line ──▶ Celery's event exchange
    update_state ── states ─────────╯    what may    one thread    one
                                         be told     a process     connection

`attempts` begins an attempt before its task runs, and ends it after. Whose code it is that calls, a context variable
says; so it holds in coroutines, in greenlets, and in threads that were started with a copy of the context.
"""

from __future__ import annotations

from typing import Any

from dure.worker.live import attempt
from dure.worker.live.attempt import Attempt
from dure.worker.live.cancelling import TaskCancelled

__all__ = ["TaskCancelled", "emit", "progress"]


def emit(chunk: Any) -> None:
    """Send one chunk of output to those who watch the job, and to its history.

    A chunk is anything that a result can be, up to 256 KiB as JSON; chunks keep their order. Does nothing in a task
    that is run in place (`apply()`, `task_always_eager`, or called as a function).

    Raises RuntimeError outside of a task, TypeError where the chunk is no JSON, ValueError where it is too large, and
    TaskCancelled after the job was cancelled.
    """
    here = attempt.current.get() or _found("emit")
    if isinstance(here, Attempt):
        here.emit(chunk)


def progress(current: float | None = None, total: float | None = None, message: str | None = None, **more: Any) -> None:
    """Tell how far the task is; what is in `more` goes along.

    At most ten a second leave, and the last one always does. Where it may be called, and what it raises, is as with
    `emit`.
    """
    here = attempt.current.get() or _found("progress")
    if isinstance(here, Attempt):
        here.progress(current, total, message, more)


def _found(name: str) -> object:
    """Where nobody began an attempt: a stock worker that was not told of us, or no worker at all."""
    from dure.worker.live import attempts

    found = attempts.join()
    if found is None:
        raise RuntimeError(
            f"dure.{name}() is called outside of a task. In a thread that a task starts, run the thread's function "
            f"with contextvars.copy_context().run, or use asyncio.to_thread; elsewhere there is no job to tell of"
        )
    return found
