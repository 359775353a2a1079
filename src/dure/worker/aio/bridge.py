"""Synchronous code that waits without holding the loop up.

`run` calls a function in a greenlet. When it calls `wait(awaitable)`, however deep, the greenlet steps aside, the
coroutine that called `run` awaits in its place, and the greenlet goes on with what came of it:

    coroutine     await run(trace)          await result_stored
    greenlet               trace ─▶ store ─▶ wait(…)   ⋯⋯⋯⋯⋯⋯   trace goes on

Only code that was written to be waited in does so: Celery's tracer, its callbacks and our own. The body of a coroutine
task is awaited outside of the greenlet, so between two `await`s of the application nothing else runs.

SQLAlchemy has the same in `greenlet_spawn`; here the greenlet also carries what is run in it.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

_T = TypeVar("_T")

_THREADS = 16  # for what blocks and is not worth a batch: callbacks, chords, errbacks

_threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dure-aside")
_background: set[asyncio.Task[Any]] = set()


class Bridge(greenlet):  # type: ignore[misc]
    """A call that may wait; `owner` is whose call it is."""

    owner: Any = None


async def run(owner: Any, function: Callable[..., _T], *args: Any) -> _T:
    """Call `function` so that it may `wait`; returns and raises what it does."""
    current = getcurrent()
    bridge = Bridge(function, current)
    bridge.gr_context = current.gr_context
    bridge.owner = owner
    result = bridge.switch(*args)
    while not bridge.dead:
        try:
            value = await result
        except BaseException:
            result = bridge.throw(*sys.exc_info())
        else:
            result = bridge.switch(value)
    return result  # type: ignore[no-any-return]


def owner() -> Any:
    """Whose call this is; None where nothing may wait."""
    current = getcurrent()
    return current.owner if isinstance(current, Bridge) else None


def may_wait() -> bool:
    return isinstance(getcurrent(), Bridge)


def wait(awaitable: Awaitable[_T]) -> _T:
    """Step aside until it is done. Only where `may_wait` says so."""
    return getcurrent().parent.switch(awaitable)  # type: ignore[no-any-return]


def aside(function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Call something that blocks: in a thread where that can be waited for, else right here."""
    if not may_wait():
        return function(*args, **kwargs)
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    return wait(loop.run_in_executor(_threads, lambda: context.run(function, *args, **kwargs)))


def spawn(loop: asyncio.AbstractEventLoop, owner: Any, function: Callable[..., object], *args: Any) -> None:
    """Call something that may wait, and do not wait for it; from the loop's thread."""
    if may_wait() or not loop.is_running():
        function(*args)
        return
    task = loop.create_task(run(owner, function, *args))
    _background.add(task)
    task.add_done_callback(_background.discard)
