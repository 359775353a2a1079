"""The one long-lived loop of a process whose pool has none: it runs the coroutines of threads that wait for them.

One loop for all attempts, so that an application's clients (HTTP, database) may outlive an attempt, as they do in a
web server. It runs in a thread of its own, is made when it is first needed, and anew in a forked process.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from dure.worker.aio.interrupt import Interruptible

_T = TypeVar("_T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_pid: int | None = None
_thread_id = 0
_running: set[asyncio.Task[Any]] = set()


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run it to its end, with the caller's context.

    An exception that a signal raises here meanwhile (prefork's soft time limit) is raised in the coroutine.
    """
    body = Interruptible(coroutine)
    done: Future[_T] = Future()
    context = contextvars.copy_context()
    loop = get_loop()

    def start() -> None:
        task = loop.create_task(_tell(body, done), context=context)
        _running.add(task)
        task.add_done_callback(_running.discard)

    loop.call_soon_threadsafe(start)
    while True:
        try:
            return done.result()
        except BaseException as exc:
            if done.done():
                raise
            loop.call_soon_threadsafe(body.interrupt, exc)


async def _tell(body: Interruptible[_T], done: Future[_T]) -> None:
    try:
        result = await body
    except BaseException as exc:
        done.set_exception(exc)
    else:
        done.set_result(result)


def get_loop() -> asyncio.AbstractEventLoop:
    """The process's loop; it runs."""
    global _loop, _pid, _thread_id
    with _lock:
        if _loop is None or _pid != os.getpid():
            loop = new_loop()
            thread = threading.Thread(target=loop.run_forever, name="dure-coroutines", daemon=True)
            thread.start()
            _loop, _pid, _thread_id = loop, os.getpid(), thread.ident or 0
        return _loop


def thread_id() -> int:
    """Of the thread that the loop runs in."""
    get_loop()
    return _thread_id


def new_loop() -> asyncio.AbstractEventLoop:
    with suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()
