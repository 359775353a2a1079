"""Celery's result backend, read for jobs that stock workers ran: they store the value there before their event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

_ENVELOPE = 1024  # what Celery writes around a value

log = structlog.get_logger("dure")

KEY = "celery-task-meta-"  # celery.backends.base.KeyValueStoreBackend.task_keyprefix


class ResultReader(Protocol):
    async def fetch(self, ids: Sequence[str]) -> Mapping[str, Any]:
        """The stored values of these jobs; one that is not there, or cannot be read, is left out."""
        ...

    async def close(self) -> None: ...


class NoResults:
    async def fetch(self, ids: Sequence[str]) -> Mapping[str, Any]:
        return {}

    async def close(self) -> None: ...


class RedisResults:
    def __init__(self, url: str, limit: int) -> None:
        self._limit = limit
        self._redis: Redis = Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)

    async def fetch(self, ids: Sequence[str]) -> Mapping[str, Any]:
        try:
            stored = await self._redis.mget([KEY + job_id for job_id in ids])
        except RedisError as exc:
            log.warning("the result backend is away; results stay unknown", error=str(exc))
            return {}
        return dict(values(ids, stored, self._limit))

    async def close(self) -> None:
        await self._redis.aclose()


def values(ids: Sequence[str], stored: Sequence[bytes | str | None], limit: int) -> list[tuple[str, Any]]:
    """The successes among them that are no larger than `limit` bytes, as in a worker's event."""
    values = []
    for job_id, body in zip(ids, stored, strict=True):
        meta = decode_meta(body) if body is not None and len(body) <= limit + _ENVELOPE else None
        if meta is not None and meta.get("status") == "SUCCESS":
            values.append((job_id, meta.get("result")))
    return values


def decode_meta(body: bytes | str | None) -> dict[str, Any] | None:
    """What Celery stores under a task's key, where it is JSON."""
    try:
        meta = msgspec.json.decode(body) if body else None
    except (msgspec.DecodeError, RecursionError):
        return None
    return meta if isinstance(meta, dict) else None
