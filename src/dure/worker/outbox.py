"""Events leave in batches on a connection of their own, and acknowledgements go after them.

An attempt's order is fixed: result stored, event confirmed by the broker, message acknowledged. So a request does
not acknowledge its message; it hands the acknowledgement to the outbox behind its last event:

    pool thread or hub        put(event) ─ then(ack)            put(event) ─ then(ack)
                                     ╰────────────┬──────────────────╯
    outbox thread               publish one message of all waiting events, wait for its confirm, call every ack

While one batch is on its way, others gather for the next: nobody waits for another's round trip, and neither the
consumer's event loop nor a pool thread waits for a confirm.

What can go wrong:

- The connection is lost, or no confirm comes in time: the batch is published again, for as long as it takes. Events
  may arrive twice, which changes nothing. Acknowledgements wait; if their channel is gone too, the broker delivers
  the message again, as a new attempt.
- The broker refuses the event itself (no permission, an exchange of another kind): that cannot heal, so the event
  is logged and dropped, and the acknowledgement goes on; a job must not hang on its history.
- So many events wait that memory is in danger: new ones are dropped, acknowledgements are kept.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from amqp.exceptions import MessageNacked
from kombu import Connection, Exchange, Producer
from kombu.exceptions import OperationalError

from dure.watch import in_messages
from dure.wire import KEYS_HEADER
from dure.worker import log

Callback = Callable[[], object]


class Event(NamedTuple):
    type: str
    body: bytes
    keys: Sequence[str]


_BATCH_BYTES = 1_048_576
_BATCH_EVENTS = 500
_BOUND = 100_000
_CONFIRM_TIMEOUT = 30.0
_LONGEST_PAUSE = 5.0


class Outbox:
    """Publishes encoded events in order, and calls back behind them."""

    def __init__(self, connect: Callable[[], Connection], exchange: Callable[[Connection], Exchange]) -> None:
        self._connect = connect
        self._exchange_on = exchange
        self._producer: Producer | None = None
        self._reset()

    def put(self, type: str, event: bytes, keys: Sequence[str] = ()) -> None:
        """Send an event, a JSON object, of a type such as `task-started`; `keys` are where it can be watched."""
        self._append(Event(type, event, keys))

    def then(self, callback: Callback) -> None:
        """Call back once everything that was put before has been confirmed; from the outbox's thread."""
        self._append(callback)

    def settle(self, callback: Callback) -> None:
        """As `then`, for what waits for nothing: from whatever thread is best."""
        self.then(callback)

    def drain(self, timeout: float) -> bool:
        """Wait until nothing is left; false if the time was not enough."""
        if self._pid != os.getpid():
            return True
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._waiting: deque[Event | Callback] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._thread: threading.Thread | None = None

    def _append(self, item: Event | Callback) -> None:
        if self._pid != os.getpid():  # a forked child has neither the thread nor the connection
            self._producer = None
            self._reset()
        with self._changed:
            if isinstance(item, Event) and len(self._waiting) >= _BOUND:
                log.event_dropped("too many events wait")
                return
            self._waiting.append(item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dure-outbox", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                self._busy = True
                events, callbacks = self._take()
            for message in _messages(events):
                self._publish(message)
            self._call(callbacks)

    def _call(self, callbacks: Iterable[Callback]) -> None:
        for callback in callbacks:
            try:
                callback()
            except Exception as exc:
                log.acknowledgement_failed(exc)

    def _take(self) -> tuple[list[Event], list[Callback]]:
        events: list[Event] = []
        callbacks: list[Callback] = []
        size = 0
        while self._waiting:
            item = self._waiting[0]
            if isinstance(item, Event):
                if events and (len(events) >= _BATCH_EVENTS or size + len(item.body) > _BATCH_BYTES):
                    break
                size += len(item.body)
                events.append(item)
            else:
                callbacks.append(item)
            self._waiting.popleft()
        return events, callbacks

    def _publish(self, message: Event) -> None:
        pause = 0.1
        while True:
            try:
                self._send(message)
            except MessageNacked:
                return log.event_dropped("the broker refused it")
            except Exception as exc:
                lost = isinstance(exc, self._lost())
                self._disconnect()
                if not lost:
                    return log.event_dropped(str(exc))
                log.events_wait(exc)
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return None

    def _send(self, message: Event) -> None:
        if self._producer is None:
            connection = self._connect()
            self._producer = Producer(connection, exchange=self._exchange_on(connection), auto_declare=False)
        self._producer.publish(
            message.body,
            routing_key=message.type.replace("-", "."),
            headers={KEYS_HEADER: list(message.keys)} if message.keys else None,
            declare=[self._producer.exchange],  # type: ignore[list-item]
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            confirm_timeout=_CONFIRM_TIMEOUT,
        )

    def _lost(self) -> tuple[type[BaseException], ...]:
        connection = self._producer.connection if self._producer else None
        errors: Any = connection.connection_errors if connection else ()
        return (OSError, OperationalError, *errors)

    def _disconnect(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None and producer.connection is not None:
            with suppress(Exception):
                producer.connection.collect()


def _messages(events: Sequence[Event]) -> Iterator[Event]:
    """Task events share one message, as Celery's own buffering does; those of other groups go alone."""
    tasks = [(event.body, event.keys) for event in events if event.type.startswith("task-")]
    for bodies, keys in in_messages(tasks):
        yield Event("task-multi", b"[" + b",".join(bodies) + b"]", keys)
    yield from (event for event in events if not event.type.startswith("task-"))
