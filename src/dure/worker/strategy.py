"""What becomes of a message that arrives: most are new, and Celery's own strategy takes them.

A message that was delivered before is looked at more closely:

    runs in this process already      ▶ the attempt takes the new delivery over, if it has lost its own
    ended in this process lately      ▶ acknowledged
    its success is stored             ▶ told once more, with the stored value, and acknowledged
    delivered too often               ▶ buried: it ends FAILURE, and goes to the dead-letter queue
    nobody counts its deliveries      ▶ sent anew with its count raised, then acknowledged
    otherwise                         ▶ Celery's own strategy

What asks a server (the last three but one) is done in the outbox's thread, where waiting keeps nobody from working.

A count that travels with the message: quorum queues and the embedded broker count deliveries by themselves, classic
queues only say that there was one before. If the worker dies between sending the message anew and acknowledging it,
there are two, and the job may run twice, as after any other death.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from celery import Celery, Task
from celery.app.task import get_actual_ignore_result  # type: ignore[attr-defined]
from celery.backends.base import DisabledBackend
from celery.exceptions import InvalidTaskError
from celery.states import SUCCESS
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr
from celery.worker import state
from celery.worker.request import create_request_cls  # type: ignore[attr-defined]
from celery.worker.strategy import default
from kombu.exceptions import ContentDisallowed, DecodeError

from dure.errors import DeadLetter
from dure.job import JobError, Reason
from dure.settings import Settings
from dure.wire import ATTEMPT_HEADER
from dure.worker import log
from dure.worker.dead_letters import DeadLetters
from dure.worker.deliveries import (
    DELIVERIES_HEADER,
    headers_of_copy,
    is_counted,
    is_only_one,
    is_redelivered,
    stage,
    unended,
)
from dure.worker.failure import Failure
from dure.worker.memory import Delivery, Known, Memory
from dure.worker.request import Request, queue_of
from dure.worker.result import Result, encode

Handler = Callable[..., Any]

_logger = get_logger("celery.worker.strategy")


class Strategy:
    """Makes the handler of each task's messages; it is what a task's `Strategy` names."""

    def __init__(self, settings: Settings, memory: Memory, dead_letters: DeadLetters) -> None:
        self.settings = settings
        self.memory = memory
        self.dead_letters = dead_letters

    def __call__(self, task: Task[..., Any], app: Celery, consumer: Any) -> Handler:
        stock: Handler = default(task, app, consumer)
        again = Again(self, task, app, consumer, stock)
        running, ended = self.memory.running, self.memory.ended

        def handle(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
            headers = message.headers
            job_id = headers.get("id")
            if body is None and (
                not isinstance(job_id, str)
                or message.delivery_info.get("redelivered")
                or DELIVERIES_HEADER in headers
                or job_id in running
                or job_id in ended
            ):
                return again.handle(message, ack, reject, callbacks)
            return stock(message, body, ack, reject, callbacks)

        return handle


class Again:
    """One task's messages that were delivered before, or whose job is known here."""

    def __init__(self, strategy: Strategy, task: Any, app: Celery, consumer: Any, stock: Handler) -> None:
        self._settings = strategy.settings
        self._memory = strategy.memory
        self._dead_letters = strategy.dead_letters
        self._outbox = strategy.dead_letters.outbox
        self._task = task
        self._app = app
        self._consumer = consumer
        self._stock = stock

    def handle(self, message: Any, ack: Any, reject: Any, callbacks: Any) -> None:
        """In the consumer's thread."""
        job_id, known = message.headers.get("id"), Known.NOT
        if not isinstance(job_id, str):
            raise InvalidTaskError("the message has no id")
        if is_only_one(message):
            known = self._memory.meet(job_id, stage(message.headers), Delivery(message, ack, reject))
        if known is Known.TAKEN_OVER:
            log.taken_over(job_id)
        elif known in (Known.ENDED, Known.TWICE):
            log.came_again(job_id)
            ack(_logger, self._consumer.connection_errors)
        elif job_id in state.revoked or not (is_redelivered(message) or DELIVERIES_HEADER in message.headers):
            self._stock(message, None, ack, reject, callbacks)
        else:
            self._outbox.then(partial(self._examine, message, ack, reject, callbacks))

    def _examine(self, message: Any, ack: Any, reject: Any, callbacks: Any) -> None:
        """In the outbox's thread."""
        if not Delivery(message, ack, reject).is_attached:  # lost meanwhile; the broker delivers it again
            return
        try:
            done = (
                self._tell_stored_success(message, ack, reject)
                or self._bury(message, ack, reject)
                or self._count(message, ack)
            )
        except Exception as exc:  # let Celery say what is wrong with the message
            log.not_counted(str(message.headers.get("id")), exc)
            done = False
        if not done:
            self._consumer.call_soon(self._run, message, ack, reject, callbacks)

    def _tell_stored_success(self, message: Any, ack: Any, reject: Any) -> bool:
        backend = self._task.backend
        if isinstance(backend, DisabledBackend) or not backend.persistent or not is_only_one(message):
            return False
        request = self._request(message, ack, reject)
        # A chord counts its parts behind the stored result, so that of a part may be missing.
        if get_actual_ignore_result(self._task, request._context) or request.chord:
            return False
        try:
            meta = backend.get_task_meta(request.id, cache=False)
        except Exception as exc:
            log.not_looked_up(request.id, exc)
            return False
        if meta.get("status") != SUCCESS:
            return False
        value = meta.get("result")
        told: Any = saferepr(value, self._task.resultrepr_maxsize)
        try:
            told = Result.of(told, encode(value), self._settings.result_limit)
        except Exception as exc:
            log.not_looked_up(request.id, exc)
        log.came_again(request.id)
        request.send_event("task-succeeded", result=told, runtime=None)
        request.acknowledge()
        return True

    def _bury(self, message: Any, ack: Any, reject: Any) -> bool:
        deliveries = unended(message)
        if deliveries < self._settings.delivery_limit:
            return False
        request = self._request(message, ack, reject)
        text = f"the message was delivered {deliveries} times without an end; it may be what kills its workers"
        log.buried(request.id, request.name, deliveries)
        try:
            self._task.backend.mark_as_failure(
                request.id, DeadLetter(text), request=request._context, store_result=request.store_errors
            )
        except Exception as exc:
            log.not_stored(request.id, exc)
        error = JobError(type="dure.errors.DeadLetter", message=text)
        request.fail(Failure(error, Reason.DELIVERY_LIMIT))
        request.bury(Reason.DELIVERY_LIMIT)
        return True

    def _count(self, message: Any, ack: Any) -> bool:
        """Send the message anew where nobody counts; if that fails, it runs as it is."""
        if is_counted(message) or not is_redelivered(message):
            return False
        headers = message.headers
        counted = {
            ATTEMPT_HEADER: _raised(headers.get(ATTEMPT_HEADER)),
            DELIVERIES_HEADER: _raised(headers.get(DELIVERIES_HEADER)),
        }
        exchange, key = "", queue_of(self._app, message) or ""
        if key not in self._app.amqp.queues.consume_from:
            exchange, key = message.delivery_info["exchange"], message.delivery_info["routing_key"]
        try:
            # To its queue alone where we know it: its exchange may have others.
            self._dead_letters.post.send(message, headers_of_copy(headers, **counted), exchange, key)
        except Exception as exc:
            log.not_counted(headers["id"], exc)
            return False
        ack(_logger, self._consumer.connection_errors)
        return True

    def _run(self, message: Any, ack: Any, reject: Any, callbacks: Any) -> None:
        """In the consumer's thread, which has left Celery's handling of messages by now."""
        if not Delivery(message, ack, reject).is_attached:
            return
        try:
            self._stock(message, None, ack, reject, callbacks)
        except (InvalidTaskError, ContentDisallowed) as exc:
            self._consumer.on_invalid_task(None, message, exc)
        except DecodeError as exc:
            self._consumer.on_decode_error(message, exc)

    def _request(self, message: Any, ack: Any, reject: Any) -> Any:
        consumer = self._consumer
        kind: Any = create_request_cls(
            type(self)._base(self._task),
            self._task,
            consumer.pool,
            consumer.hostname,
            consumer.event_dispatcher,
            app=self._app,
        )
        request = kind(
            message,
            on_ack=ack,
            on_reject=reject,
            app=self._app,
            hostname=consumer.hostname,
            eventer=consumer.event_dispatcher,
            task=self._task,
            connection_errors=consumer.connection_errors,
            body=message.body,
            headers=message.headers,
        )
        self._memory.forget(request)  # it is not going to run
        return request

    @staticmethod
    def _base(task: Any) -> type[Request]:
        return task.Request if isinstance(task.Request, type) and issubclass(task.Request, Request) else Request


def _raised(count: Any) -> int:
    return 1 + (count if isinstance(count, int) and count > 0 else 0)
