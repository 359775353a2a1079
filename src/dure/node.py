"""A worker as the ledger knows it: Celery calls its process a node."""

from __future__ import annotations

from msgspec import Struct


class Node(Struct, frozen=True, kw_only=True):
    """One worker process, named `name@host`. Fields that it has not told are None or empty."""

    hostname: str
    online: bool = True
    pool: str | None = None
    concurrency: int | None = None
    queues: tuple[str, ...] = ()
    software: str | None = None
    pid: int | None = None
    processed: int | None = None
    heartbeat_at: float = 0.0
    started_at: float | None = None


class Running(Struct, frozen=True, kw_only=True):
    """A job that a worker runs now."""

    id: str
    task: str | None
    started_at: float | None


class QueueDepth(Struct, frozen=True, kw_only=True):
    """A queue of the broker: messages that wait in it and consumers on it; `exists` is false for a missing one."""

    name: str
    messages: int = 0
    consumers: int = 0
    exists: bool = True
