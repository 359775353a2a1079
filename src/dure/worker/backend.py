"""Celery's result backend over the embedded broker's key-value store: `dure:///abs/path/results.db`.

A file of its own, so that a busy broker and many results do not wait for one another's locks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from celery import states
from celery.backends.base import KeyValueStoreBackend

from dure.broker.errors import BrokerUnavailable
from dure.broker.results import Results
from dure.errors import ConfigurationError, Problem

# A look at a local file costs microseconds; Celery's half a second is meant for a server.
_LONGEST_INTERVAL = 0.02
_REMEDY = "write it as dure:///absolute/path/results.db"


class Backend(KeyValueStoreBackend):
    # Celery makes its keys bytes, whatever its annotations say.
    supports_native_join = True
    supports_autoexpire = True
    implements_incr = True
    supports_result_compression = True
    expires: float | None
    url: str | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        path = unquote(urlsplit(self.url or "").path)
        if not path.strip("/"):
            raise ConfigurationError([Problem("result_backend", f"{self.url!r} names no file", _REMEDY)])
        self._results = Results(path)

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return super().__reduce__(args, {**(kwargs or {}), "url": self.url})  # type: ignore[call-arg]

    def get(self, key: Any) -> bytes | None:
        return self._results.get(key)

    def mget(self, keys: Any) -> list[bytes | None]:
        return self._results.get_many(keys)

    def set(self, key: Any, value: bytes | str) -> None:
        self._results.set(key, _encoded(value), expires=self.expires)

    def _set_with_state(self, key: Any, value: bytes | str, state: str) -> None:
        # The base looks for SUCCESS before it comes here; looking again inside the transaction leaves no gap.
        self._results.set_unless(key, _encoded(value), self._is_success, expires=self.expires)

    def _is_success(self, stored: bytes) -> bool:
        meta = self.decode_result(stored)
        return isinstance(meta, dict) and meta.get("status") == states.SUCCESS

    def delete(self, key: Any) -> None:
        self._results.delete(key)

    def incr(self, key: Any) -> int:
        return self._results.increment(key)

    def expire(self, key: Any, value: float | None) -> None:
        self._results.expire(key, value)

    def cleanup(self) -> None:
        self._results.drop_expired()

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], None] | None = None,
    ) -> Any:
        interval = min(interval, _LONGEST_INTERVAL)
        return super().wait_for(task_id, timeout, interval, no_ack, on_interval)

    def get_many(
        self, task_ids: Any, timeout: float | None = None, interval: float | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        interval = min(interval or _LONGEST_INTERVAL, _LONGEST_INTERVAL)
        return super().get_many(task_ids, timeout, interval, *args, **kwargs)

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        return isinstance(exc, BrokerUnavailable)


def _encoded(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
