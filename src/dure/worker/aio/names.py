"""The pool's name among Celery's: `--pool asyncio`, `worker_pool = "asyncio"`."""

from __future__ import annotations

from celery import concurrency
from celery.bin.worker import WORKERS_POOL

POOL = "asyncio"
IMPLEMENTATION = "dure.worker.aio.asyncio:TaskPool"


def register() -> None:
    aliases: dict[str, str] = concurrency.ALIASES  # type: ignore[attr-defined]
    aliases[POOL] = IMPLEMENTATION
    WORKERS_POOL.choices = tuple(aliases)
