"""Celery's request with our fields in its events, and with the message acknowledged behind them.

Celery acknowledges a finished attempt's message first and tells afterwards. Here every acknowledgement (and
rejection) of a task with `acks_late` goes through the outbox, behind the events that were sent before it. The
handlers of an attempt's end ask for the acknowledgement before they send the event, so theirs is held until the
handler is through, however it leaves.

`acknowledged` is true from the moment the acknowledgement was asked for: nothing is settled twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded
from celery.exceptions import Ignore
from celery.utils.log import get_logger
from celery.worker.request import Request as CeleryRequest

from dure.wire import ATTEMPT_HEADER
from dure.worker.dispatcher import Dispatcher
from dure.worker.failure import Failure, failure
from dure.worker.result import Result

_logger = get_logger("celery.worker.request")

# Set by quorum queues on a message that they deliver again. A retry copies headers that it does not know, so these
# must go, or the retry's first delivery would look like a later one.
_DELIVERY_COUNT = "x-delivery-count"
_BROKER_HEADERS = (_DELIVERY_COUNT, "x-acquired-count")


class Request(CeleryRequest):
    """One attempt, from the delivery of its message to the acknowledgement."""

    _app: Any
    _connection_errors: Any
    _delivery_info: dict[str, Any]
    _eventer: Any
    _on_ack: Callable[..., object]
    _on_reject: Callable[..., object]
    _request_dict: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Celery makes a subclass for each task, with its own `on_success`.
        super().__init_subclass__(**kwargs)
        cls.on_success = _holding(cls.on_success)  # type: ignore[method-assign]

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(message, *args, **kwargs)
        self.attempt = attempt_number(message)
        self.queue = self._queue_name()
        self._held: Callable[[], object] | None = None
        self._holding = False
        self._failure: Failure | None = None
        for header in _BROKER_HEADERS:
            self._request_dict.pop(header, None)
        self._request_dict[ATTEMPT_HEADER] = self.attempt
        if isinstance(self._eventer, Dispatcher):
            self._eventer.arriving = self

    def on_success(self, failed__retval__runtime: Any, **kwargs: Any) -> Any:
        with self._hold():
            return super().on_success(failed__retval__runtime, **kwargs)

    def on_failure(self, exc_info: ExceptionInfo, *args: Any, **kwargs: Any) -> Any:
        self._failure = getattr(exc_info, "dure", None) or _failure_of(exc_info)
        with self._hold():
            if _is_ignored(exc_info):
                self.send_event("task-ignored")
            return super().on_failure(exc_info, *args, **kwargs)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        if not soft:
            self._failure = failure(TimeLimitExceeded(timeout))
        with self._hold():
            return super().on_timeout(soft, timeout)

    def acknowledge(self) -> None:
        self._settle(partial(self._on_ack, _logger, self._connection_errors))

    def reject(self, requeue: bool = False) -> None:
        if not self.acknowledged:
            self._settle(partial(self._on_reject, _logger, self._connection_errors, requeue), hold=True)
            self.send_event("task-rejected", requeue=requeue)
            if not self._holding:
                self._release()

    def send_event(self, type: str, **fields: Any) -> None:
        eventer = self._eventer
        if not isinstance(eventer, Dispatcher) or not eventer.relayed:
            super().send_event(type, **fields)
        elif self.task.send_events:
            eventer.post(type, uuid=self.id, **fields, **self._ours(type, fields))

    def _ours(self, type: str, fields: dict[str, Any]) -> dict[str, Any]:
        ours: dict[str, Any] = {"attempt": self.attempt}
        if type == "task-succeeded":
            result = fields.get("result")
            if isinstance(result, Result):
                ours |= result.fields()
        elif type in ("task-failed", "task-retried") and self._failure is not None:
            ours |= self._failure.fields()
        return ours

    def _settle(self, settle: Callable[[], object], *, hold: bool = False) -> None:
        if self.acknowledged:
            return
        self.acknowledged = True
        self._held = settle
        if not (hold or self._holding):
            self._release()

    def _release(self) -> None:
        settle, self._held = self._held, None
        if settle is None:
            return
        eventer = self._eventer
        if self.task.acks_late and isinstance(eventer, Dispatcher) and eventer.relayed:
            eventer.outbox.then(settle)
        else:
            settle()

    @contextmanager
    def _hold(self) -> Iterator[None]:
        if self._holding:
            yield
            return
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            self._release()

    def _queue_name(self) -> str | None:
        info = self._delivery_info
        exchange, key = info.get("exchange"), info.get("routing_key")
        if exchange:
            for queue in self._app.amqp.queues.consume_from.values():
                if queue.exchange and queue.exchange.name == exchange and queue.routing_key == key:
                    return str(queue.name)
        return None if key is None else str(key)


def attempt_number(message: Any) -> int:
    """From 1: the attempts before this message, and the deliveries of this message before this one."""
    headers = message.headers or {}
    before = _whole(headers.get(ATTEMPT_HEADER))
    redelivered = bool((message.delivery_info or {}).get("redelivered"))
    return 1 + before + (_whole(headers.get(_DELIVERY_COUNT)) or int(redelivered))


def _failure_of(exc_info: Any) -> Failure:
    return failure(exc_info.exception, exc_info.traceback)


def _is_ignored(exc_info: ExceptionInfo) -> bool:
    """Celery tells nothing of a task that raised Ignore. A replaced task goes on under the same id, though."""
    exc = getattr(exc_info.exception, "exc", exc_info.exception)
    return type(exc) is Ignore and exc.args != ("Replaced by new task",)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _holding(handler: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(handler)
    def held(self: Request, *args: Any, **kwargs: Any) -> Any:
        with self._hold():
            return handler(self, *args, **kwargs)

    return held
