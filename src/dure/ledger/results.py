"""Celery's result backend, read for what events did not tell: a stock worker's values, and ends that were lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec
import structlog
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

from dure.job import JobError, State
from dure.workflow import WORKFLOW_BYTES, is_workflow

_ENVELOPE = 1024  # what Celery writes around a value

log = structlog.get_logger("dure")

KEY = "celery-task-meta-"  # celery.backends.base.KeyValueStoreBackend.task_keyprefix


class Stored(Struct, frozen=True, kw_only=True):
    """How a task ended, as it was stored; `has_result` is false where the value is larger than the limit."""

    state: State
    result: Any = None
    has_result: bool = False
    error: JobError | None = None
    at: float | None = None


class ResultReader(Protocol):
    async def fetch(self, ids: Sequence[str]) -> Mapping[str, Stored]:
        """The stored ends of these jobs; one that is not there, is none, or cannot be read, is left out."""
        ...

    async def close(self) -> None: ...


class NoResults:
    async def fetch(self, ids: Sequence[str]) -> Mapping[str, Stored]:
        return {}

    async def close(self) -> None: ...


class RedisResults:
    def __init__(self, url: str, limit: int) -> None:
        self._limit = limit
        self._redis: Redis = Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)

    async def fetch(self, ids: Sequence[str]) -> Mapping[str, Stored]:
        try:
            bodies = await self._redis.mget([KEY + job_id for job_id in ids])
        except RedisError as exc:
            log.warning("the result backend is away; results stay unknown", error=str(exc))
            return {}
        return stored(ids, bodies, self._limit)

    async def close(self) -> None:
        await self._redis.aclose()


def stored(ids: Sequence[str], bodies: Sequence[bytes | str | None], limit: int) -> dict[str, Stored]:
    """`limit` is the most bytes of a value, as in a worker's event."""
    found = {}
    for job_id, body in zip(ids, bodies, strict=True):
        meta = decode_meta(body)
        end = None if meta is None else _end(meta, has_room=len(body or b"") <= _most(meta, limit) + _ENVELOPE)
        if end is not None:
            found[job_id] = end
    return found


def _most(meta: dict[str, Any], limit: int) -> int:
    """As a worker of ours has it: a workflow is no value to be left out."""
    return max(limit, WORKFLOW_BYTES) if is_workflow(meta.get("result")) else limit


def _end(meta: dict[str, Any], *, has_room: bool) -> Stored | None:
    try:
        state = State(str(meta.get("status")))
    except ValueError:
        return None
    if not state.final:
        return None
    at = _moment(meta.get("date_done"))
    if state is State.SUCCESS:
        return Stored(state=state, result=meta.get("result") if has_room else None, has_result=has_room, at=at)
    return Stored(state=state, error=_error(meta), at=at)


def _error(meta: dict[str, Any]) -> JobError | None:
    """Celery writes an exception as its type, module and arguments (`Backend.prepare_exception`)."""
    told = meta.get("result")
    if not isinstance(told, dict):
        return None
    module, kind, said = told.get("exc_module"), told.get("exc_type"), told.get("exc_message")
    name = str(kind or "Exception")
    message = ", ".join(map(str, said)) if isinstance(said, list) else str(said or "")
    traceback = meta.get("traceback")
    return JobError(
        type=name if module in (None, "builtins") else f"{module}.{name}",
        message=message,
        traceback=traceback if isinstance(traceback, str) else None,
    )


def _moment(told: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(told)).timestamp() if told else None
    except (ValueError, OverflowError):
        return None


def decode_meta(body: bytes | str | None) -> dict[str, Any] | None:
    """What Celery stores under a task's key, where it is JSON."""
    try:
        meta = msgspec.json.decode(body) if body else None
    except (msgspec.DecodeError, RecursionError):
        return None
    return meta if isinstance(meta, dict) else None
