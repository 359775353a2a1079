"""The application's result backend, whose calls do not hold the loop up.

The backend is the application's own, made by Celery; only its class becomes one derived from its class. In an attempt
of the pool:

    Redis and the embedded backend   results are written in batches, each batch in one atomic round trip; a stored
                                     SUCCESS is never overwritten
    other backends                   each result is stored in a thread: of a sync task in its own
    chords, errbacks, look-ups       in a thread

Everywhere else (tasks in processes, the application's own calls) the backend does what it always does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from celery import Celery, states
from celery.backends.base import DisabledBackend
from celery.backends.redis import RedisBackend
from kombu.utils.encoding import bytes_to_str, ensure_bytes

from dure.worker.aio import bridge, together
from dure.worker.aio.meta import Meta
from dure.worker.aio.redis_results import store_in_redis
from dure.worker.aio.together import Together
from dure.worker.aio.writer import Writer
from dure.worker.backend import Backend as EmbeddedBackend

_classes: dict[type, type] = {}


class Item(NamedTuple):
    key: bytes
    value: bytes
    state: str


class Aside:
    """Mixed into a backend: what asks a server is done in a thread, while the attempt waits."""

    def store_result(self, *args: Any, **kwargs: Any) -> Any:
        return bridge.aside(super().store_result, *args, **kwargs)  # type: ignore[misc]

    def on_chord_part_return(self, *args: Any, **kwargs: Any) -> Any:
        return bridge.aside(super().on_chord_part_return, *args, **kwargs)  # type: ignore[misc]

    def _call_task_errbacks(self, *args: Any, **kwargs: Any) -> Any:
        return bridge.aside(super()._call_task_errbacks, *args, **kwargs)  # type: ignore[misc]

    def _get_task_meta_for(self, task_id: Any) -> Any:
        return bridge.aside(super()._get_task_meta_for, task_id)  # type: ignore[misc]


class Batched(Aside, Meta):
    """Mixed into a key-value backend that stores many results at once, by `store_batch`."""

    encode: Any
    get_key_for_task: Any
    store_batch: Any
    _ensure_retryable: Any
    together: Together[Item]  # with the application's other backends; Celery makes one for each thread
    _writer: Writer[Item] | None = None

    def store_result(self, *args: Any, **kwargs: Any) -> Any:
        return super(Aside, self).store_result(*args, **kwargs)  # type: ignore[misc]

    def _store_result(
        self, task_id: Any, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        in_thread = together.is_joined()
        if not (in_thread or bridge.may_wait()):
            stock = super()._store_result  # type: ignore[misc]
            return stock(task_id, result, state, traceback=traceback, request=request, **kwargs)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = bytes_to_str(task_id)
        item = Item(self.get_key_for_task(task_id), ensure_bytes(self.encode(meta)), state)
        if in_thread:
            self.together.put(item, self._store_patiently)
            return result
        if self._writer is None:
            self._writer = Writer(self._store_patiently)
        bridge.wait(self._writer.put(item))
        return result

    def _store_patiently(self, items: Sequence[Item]) -> None:
        self._ensure_retryable(self.store_batch, items)


class BatchedRedis(Batched):
    client: Any
    decode_result: Any
    expires: int | None
    failure_expires: int | None

    def store_batch(self, items: Sequence[Item]) -> None:
        store_in_redis(self.client, [(item.key, item.value, self._expires(item)) for item in items], self._is_success)

    def _expires(self, item: Item) -> int:
        return int((self.failure_expires if item.state == states.FAILURE else self.expires) or 0)

    def _is_success(self, stored: Any) -> bool:
        return bool(self.decode_result(stored)["status"] == states.SUCCESS)


class BatchedEmbedded(Batched):
    expires: float | None
    _is_success: Any
    _results: Any

    def store_batch(self, items: Sequence[Item]) -> None:
        self._results.set_each_unless([(i.key, i.value) for i in items], self._is_success, expires=self.expires)


def install(app: Celery) -> None:
    """From here on the application's backend, in each thread, is one of these."""
    make: Any = app._get_backend  # type: ignore[attr-defined]
    anyapp: Any = app
    shared: Together[Item] = Together()
    anyapp._get_backend = lambda: _converted(make(), shared)
    if anyapp._backend is not None:
        _converted(anyapp._backend, shared)


def _converted(backend: Any, shared: Together[Item]) -> Any:
    if not isinstance(backend, (Aside, DisabledBackend)):
        backend.__class__ = _class_from(type(backend))
        backend.together = shared
    return backend


def _class_from(stock: type) -> type:
    if stock in _classes:
        return _classes[stock]
    batched = BatchedRedis if issubclass(stock, RedisBackend) else Aside
    if issubclass(stock, EmbeddedBackend):
        batched = BatchedEmbedded
    return _classes.setdefault(stock, type(stock.__name__, (batched, stock), {"__module__": stock.__module__}))
