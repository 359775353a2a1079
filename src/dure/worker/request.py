"""Celery's request with our fields in its events, and with the message acknowledged behind them.

Celery acknowledges a finished attempt's message first and tells afterwards. Here every acknowledgement (and
rejection) of a task with `acks_late` goes through the outbox, behind the events that were sent before it. The
handlers of an attempt's end ask for the acknowledgement before they send the event, so theirs is held until the
handler is through, however it leaves.

`acknowledged` is true from the moment the acknowledgement was asked for: nothing is settled twice.

Whatever the message's fate, it befalls the delivery that the attempt has by then, which may be a later one than it
began with (see `memory`). What is rejected for good goes to the dead-letter queue.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ClassVar

from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded
from celery.concurrency.base import BasePool
from celery.exceptions import Ignore
from celery.utils.log import get_logger
from celery.worker.request import Request as CeleryRequest

from dure.dead import BROKER_HEADERS
from dure.entry import Position
from dure.job import Reason
from dure.wire import ATTEMPT_HEADER
from dure.worker import log
from dure.worker.dead_letters import DeadLetters
from dure.worker.deliveries import DELIVERIES_HEADER, attempt_number, stage
from dure.worker.dispatcher import Dispatcher
from dure.worker.failure import Failure, failure
from dure.worker.followers import Follower, followers
from dure.worker.live import cancelling
from dure.worker.live.cancelling import TaskCancelled
from dure.worker.memory import Delivery, Memory
from dure.worker.result import Result

_NO_SUCCESS = frozenset({"task-failed", "task-revoked", "task-ignored"})
_CLOSING = _NO_SUCCESS | {"task-retried"}

_logger = get_logger("celery.worker.request")


class Request(CeleryRequest):
    """One attempt, from the delivery of its message to the acknowledgement."""

    _app: Any
    _connection_errors: Any
    _delivery_info: dict[str, Any]
    _eventer: Any
    _on_ack: Callable[..., object]
    _on_reject: Callable[..., object]
    _request_dict: dict[str, Any]

    memory: ClassVar[Memory] = Memory()
    dead_letters: ClassVar[DeadLetters | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Celery makes a subclass for each task, with its own `on_success` and `execute_using_pool`.
        super().__init_subclass__(**kwargs)
        cls.on_success = _holding(cls.on_success)  # type: ignore[method-assign]
        cls.execute_using_pool = _certain(cls.execute_using_pool)  # type: ignore[method-assign]

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(message, *args, **kwargs)
        self.attempt = attempt_number(message)
        self.stage = stage(self._request_dict)
        self.queue = queue_of(self._app, message)
        self.delivery = Delivery(message, self._on_ack, self._on_reject)
        self.is_certain = False  # that it will run, whatever becomes of the connection
        self._held: Callable[[], object] | None = None
        self._holding = False
        self._failure: Failure | None = None
        self._told: Position | None = None
        # A retry copies headers that it does not know, and its first delivery must not look like a later one.
        for header in (*BROKER_HEADERS, DELIVERIES_HEADER):
            self._request_dict.pop(header, None)
        self._request_dict[ATTEMPT_HEADER] = self.attempt
        if isinstance(self._eventer, Dispatcher):
            self._eventer.arriving = self
        self.memory.begin(self)

    @property
    def is_attached(self) -> bool:
        return self.delivery.is_attached

    @property
    def membership(self) -> dict[str, str]:
        """The group of plain Celery code that the job is of, as its events tell it."""
        group = self._request_dict.get("group")  # `self.group` is cached behind a lock, for three looks
        return {"group_id": group} if isinstance(group, str) else {}

    def on_accepted(self, pid: Any, time_accepted: float) -> Any:
        self.is_certain = True
        return super().on_accepted(pid, time_accepted)

    def on_success(self, failed__retval__runtime: Any, **kwargs: Any) -> Any:
        with _Hold(self):
            return super().on_success(failed__retval__runtime, **kwargs)

    def on_failure(self, exc_info: ExceptionInfo, *args: Any, **kwargs: Any) -> Any:
        self._failure = getattr(exc_info, "dure", None) or _failure_of(exc_info)
        self._told = getattr(exc_info, "told", None)
        with _Hold(self):
            if isinstance(_raised(exc_info), TaskCancelled):
                return self._announce_revoked("terminated", True, None, False)
            if _is_ignored(exc_info):
                self.send_event("task-ignored")
            return super().on_failure(exc_info, *args, **kwargs)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        if not soft:
            self._failure = failure(TimeLimitExceeded(timeout))
        with _Hold(self):
            return super().on_timeout(soft, timeout)

    def terminate(self, pool: Any, signal: Any = None) -> Any:
        if _can_terminate(pool):
            return super().terminate(pool, signal)
        cancelling.ask(self.id)
        log.asked_to_stop(self.id, type(pool).__module__.rpartition(".")[2])
        return None

    def acknowledge(self) -> None:
        self._settle(self._acknowledge_now)

    def reject(self, requeue: bool = False) -> None:
        if not self.acknowledged:
            self._settle(partial(self._reject_now, requeue), hold=True)
            self.send_event("task-rejected", requeue=requeue)
            if not self._holding:
                self._release()

    def fail(self, what: Failure) -> None:
        """Tell of an end that no attempt came to."""
        self._failure = what
        self.send_event("task-failed", exception=f"{what.error.type}({what.error.message!r})", traceback=None)

    def bury(self, reason: str) -> None:
        """Give the message up: it is not to be delivered again."""
        self._settle(partial(self._bury_now, reason))

    def send_event(self, type: str, **fields: Any) -> None:
        eventer = self._eventer
        if not isinstance(eventer, Dispatcher) or not eventer.relayed:
            super().send_event(type, **fields)
        elif self.task.send_events and eventer.tells_of_tasks:
            eventer.post(type, uuid=self.id, **self._ours(type, fields) | fields)
            if type in _NO_SUCCESS:
                self._tell_of_followers(eventer, type, fields)

    def _tell_of_followers(self, eventer: Dispatcher, type: str, fields: dict[str, Any]) -> None:
        """They end as this job did."""
        told = self._failure.of_follower(f"{self.name}[{self.id}]").fields() if self._failure is not None else {}
        ours = fields | told | {"root_id": self.root_id, "parent_id": self.id}
        for job_id, task in self._followers():
            eventer.post(type, uuid=job_id, **ours | {"name": task})

    def _followers(self) -> list[Follower]:
        try:
            return followers(self._payload[2])  # type: ignore[attr-defined]
        except Exception:  # a body that cannot be read may be why it failed
            return []

    def _ours(self, type: str, fields: dict[str, Any]) -> dict[str, Any]:
        ours: dict[str, Any] = {"attempt": self.attempt, "name": self.name} | self.membership
        root_id = self.root_id
        if isinstance(root_id, str) and root_id != self.id:
            ours["root_id"] = root_id
        if type == "task-succeeded":
            result = fields.get("result")
            if isinstance(result, Result):
                ours |= result.fields()
        elif type in ("task-failed", "task-retried") and self._failure is not None:
            ours |= self._failure.fields()
        if type in _CLOSING and self._told is not None:
            ours["told"] = self._told
        return ours

    def _announce_cancelled(self, *args: Any, **kwargs: Any) -> Any:
        self.memory.forget(self)
        return super()._announce_cancelled(*args, **kwargs)  # type: ignore[misc]

    def _announce_revoked(self, *args: Any, **kwargs: Any) -> Any:
        cancelling.forget(self.id)
        return super()._announce_revoked(*args, **kwargs)  # type: ignore[misc]

    def _acknowledge_now(self) -> None:
        delivery = self.memory.settle(self, ended=True)
        delivery.acknowledge(_logger, self._connection_errors)

    def _reject_now(self, requeue: bool) -> None:
        delivery = self.memory.settle(self, ended=not requeue)
        if requeue or self.dead_letters is None:
            delivery.reject(_logger, self._connection_errors, requeue)
        else:
            self._give_up(Reason.REJECTED, delivery)

    def _bury_now(self, reason: str) -> None:
        delivery = self.memory.settle(self, ended=True)
        self._give_up(reason, delivery, partial(delivery.acknowledge, _logger, self._connection_errors))

    def _give_up(self, reason: str, delivery: Delivery, acknowledge: Callable[[], object] | None = None) -> None:
        if self.dead_letters is not None:
            reject = partial(delivery.reject, _logger, self._connection_errors)
            self.dead_letters.give_up(self.message, reason, self.queue, reject=reject, acknowledge=acknowledge)

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
            eventer.outbox.settle(settle)
        else:
            settle()


class _Hold:
    """While an end is told; the outermost lets the acknowledgement go. Once an attempt, so not by contextlib."""

    __slots__ = ("_is_outermost", "_request")

    def __init__(self, request: Request) -> None:
        self._request = request

    def __enter__(self) -> None:
        self._is_outermost = not self._request._holding
        self._request._holding = True

    def __exit__(self, *_: object) -> None:
        if self._is_outermost:
            self._request._holding = False
            self._request._release()


def bound(memory: Memory, dead_letters: DeadLetters) -> type[Request]:
    """The request class that shares these."""
    return type("Request", (Request,), {"memory": memory, "dead_letters": dead_letters})


def queue_of(app: Any, message: Any) -> str | None:
    info = message.delivery_info or {}
    exchange, key = info.get("exchange"), info.get("routing_key")
    if exchange:
        for queue in app.amqp.queues.consume_from.values():
            if queue.exchange and queue.exchange.name == exchange and queue.routing_key == key:
                return str(queue.name)
    return None if key is None else str(key)


def _can_terminate(pool: Any) -> bool:
    return getattr(pool.terminate_job, "__func__", None) is not BasePool.terminate_job


def _failure_of(exc_info: Any) -> Failure:
    return failure(exc_info.exception, exc_info.traceback)


def _raised(exc_info: Any) -> Any:
    return getattr(exc_info.exception, "exc", exc_info.exception)


def _is_ignored(exc_info: ExceptionInfo) -> bool:
    """Celery tells nothing of a task that raised Ignore. A replaced task goes on under the same id, though."""
    exc = _raised(exc_info)
    return type(exc) is Ignore and exc.args != ("Replaced by new task",)


def _holding(handler: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(handler)
    def held(self: Request, outcome: Any, *args: Any, **kwargs: Any) -> Any:
        with _Hold(self):
            # A pool of threads calls this too when a task leaves the interpreter, with what Celery can't unpack.
            if isinstance(outcome, ExceptionInfo):
                return self.on_failure(outcome)
            return handler(self, outcome, *args, **kwargs)

    return held


def _certain(execute: Callable[..., Any]) -> Callable[..., Any]:
    """What a pool of threads is given will run.

    Prefork drops what no process has accepted yet when the connection is lost; `on_accepted` comes soon after there.
    """

    @wraps(execute)
    def certain(self: Request, pool: Any, **kwargs: Any) -> Any:
        self.is_certain = not pool.uses_semaphore
        return execute(self, pool, **kwargs)

    return certain
