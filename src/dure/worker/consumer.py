"""Celery's consumer, with another end for messages that it cannot make a job of, and shorter pauses between tries to
reach the broker.

Celery rejects them, and most queues drop what is rejected; a message that cannot be decoded it even acknowledges. Here
their jobs end FAILURE, and a copy goes to the dead-letter queue first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from celery import signals
from celery.app.task import Context
from celery.exceptions import NotRegistered
from celery.utils.log import get_logger
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.consumer.consumer import (  # type: ignore[attr-defined]
    INVALID_TASK_ERROR,
    UNKNOWN_FORMAT,
    UNKNOWN_TASK_ERROR,
    dump_body,
)

from dure.job import Reason
from dure.worker import log
from dure.worker.dead_letters import DeadLetters
from dure.worker.deliveries import attempt_number
from dure.worker.failure import failure
from dure.worker.reconnect import look_often, sever
from dure.worker.request import queue_of

_logger = get_logger("celery.worker.consumer.consumer")


class Consumer(CeleryConsumer):
    # Set by a step of ours (see `steps`), which knows the settings.
    dead_letters: DeadLetters

    app: Any
    hub: Any
    call_soon_ack: Callable[..., object]
    connection_errors: Any
    event_dispatcher: Any
    _message_report: Callable[..., str]

    def ensure_connected(self, connection: Any) -> Any:
        look_often(connection)
        return super().ensure_connected(connection)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        super().on_connection_error_after_connected(exc)
        if self.event_dispatcher:  # closed by Celery when it connects again
            sever(self.event_dispatcher.connection, self.hub)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        _logger.warning(UNKNOWN_FORMAT, self._message_report(body, message))
        self._give_up(message, Reason.REJECTED, None)
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        report = (exc, dump_body(message, body), message.headers, message.delivery_info)
        _logger.error(UNKNOWN_TASK_ERROR, *report, exc_info=True)
        told = message.headers if "id" in (message.headers or {}) else message.payload  # protocol 2 and 1
        job_id, name = told.get("id"), told.get("task")
        self._give_up(message, Reason.UNREGISTERED, NotRegistered(name), job_id)
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=job_id)

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        _logger.error(INVALID_TASK_ERROR, exc, dump_body(message, body), exc_info=True)
        self._give_up(message, Reason.REJECTED, exc, (message.headers or {}).get("id"))
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        _logger.critical("Can't decode message %r: %r", message.delivery_info, exc, exc_info=True)
        self._give_up(message, Reason.REJECTED, exc, (message.headers or {}).get("id"))

    def _give_up(self, message: Any, reason: Reason, exc: BaseException | None, job_id: Any = None) -> None:
        if exc is not None and isinstance(job_id, str):
            self._tell(message, reason, exc, job_id)
        reject: Callable[[bool], object] = partial(
            self.call_soon_ack, message.reject_log_error, _logger, self.connection_errors
        )
        self.dead_letters.give_up(message, reason, queue_of(self.app, message), reject=reject)

    def _tell(self, message: Any, reason: Reason, exc: BaseException, job_id: str) -> None:
        headers, properties = message.headers or {}, message.properties or {}
        request = Context(
            id=job_id,
            task=headers.get("task"),
            root_id=headers.get("root_id"),
            group=headers.get("group"),
            correlation_id=properties.get("correlation_id"),
            reply_to=properties.get("reply_to"),
        )
        try:
            self.app.backend.mark_as_failure(job_id, exc, request=request)
        except Exception as refused:
            log.not_stored(job_id, refused)
        if self.event_dispatcher:
            fields = failure(exc).fields() | {"reason": reason, "attempt": attempt_number(message)}
            self.event_dispatcher.send("task-failed", uuid=job_id, exception=repr(exc), **fields)
