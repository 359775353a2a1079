"""Errbacks of the new form, `async def on_error(request, exc, traceback)`.

Celery calls them itself, as functions, where a task has failed. An `async def` that is called gives its coroutine,
which nobody would await; so here it is known who calls. The coroutine runs on the worker's loop, or else on the
process's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from functools import wraps
from typing import Any

from celery.backends.base import Backend
from kombu.asynchronous import get_event_loop

from dure.worker.aio import bridge, home

_celery_calls: ContextVar[bool] = ContextVar("celery_calls_errbacks", default=False)


def install() -> None:
    """Once for a process, for errbacks are called by every backend."""
    anybackend: Any = Backend
    stock = anybackend._call_task_errbacks
    if hasattr(stock, "__dure__"):
        return

    @wraps(stock)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = _celery_calls.set(True)
        try:
            return stock(self, *args, **kwargs)
        finally:
            _celery_calls.reset(token)

    call.__dure__ = True  # type: ignore[attr-defined]
    anybackend._call_task_errbacks = call


def is_one() -> bool:
    """Whether what is called now is an errback."""
    return _celery_calls.get()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    token = _celery_calls.set(False)  # what it calls itself is none
    try:
        if bridge.may_wait():
            return bridge.wait(coroutine)
        loop = getattr(get_event_loop(), "aio", None)
        if loop is None or not loop.is_running() or asyncio._get_running_loop() is loop:
            return home.run(coroutine)
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    finally:
        _celery_calls.reset(token)
