"""The pool's name among Celery's: `--pool asyncio`, `worker_pool = "asyncio"`; and its sizes."""

from __future__ import annotations

import os

from celery import concurrency
from celery.bin.worker import WORKERS_POOL

POOL = "asyncio"
IMPLEMENTATION = "dure.worker.aio.asyncio:TaskPool"
COROUTINES = 100  # at once, and as many messages a worker holds


def register() -> None:
    aliases: dict[str, str] = concurrency.ALIASES  # type: ignore[attr-defined]
    aliases[POOL] = IMPLEMENTATION
    WORKERS_POOL.choices = tuple(aliases)


def threads() -> int:
    """For sync tasks, where nobody says how many: as many as Python's own pool of threads takes."""
    return min(32, processors() + 4)


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
