"""The way to the broker: messages leave one after another, and their confirms are read later.

A watcher has a message as soon as the broker has routed it; a quorum queue confirms it some milliseconds after. Were
each confirm waited for, the next message would leave so much later. So confirms are counted beside: `confirmed` tells
how many of the oldest are through.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import Any

from celery import Celery
from celery.events.event import get_exchange
from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from dure.wire import ENTRIES_KEY, KEYS_HEADER
from dure.worker import log

CONFIRM_TIMEOUT = 30.0


class Line:
    """Used from one thread only. Whatever it raises, `close` it then, and send again what was not confirmed."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Connection | None = None
        self._producer: Any = None
        self._confirms = False
        self._tag = 0
        self._unconfirmed: deque[tuple[int, float]] = deque()
        self._answered: set[int] = set()
        self._through = 0

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def send(self, body: bytes, keys: list[str]) -> None:
        if self._producer is None:
            self._open()
        self._producer.publish(
            body,
            routing_key=ENTRIES_KEY,
            headers={KEYS_HEADER: keys},
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
        )
        self._tag += 1
        if self._confirms:
            self._unconfirmed.append((self._tag, time.monotonic()))
        else:  # the embedded broker has it in its file by now
            self._through += 1

    def confirmed(self, wait: float) -> int:
        """How many more are through, the oldest first; waits up to `wait` seconds for one answer."""
        if self._unconfirmed and self._connection is not None:
            # Not less than a millisecond: amqp loses half a frame that it began to read without any.
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=max(wait, 0.001))
        while self._unconfirmed and self._unconfirmed[0][0] in self._answered:
            self._answered.discard(self._unconfirmed.popleft()[0])
            self._through += 1
        if self._unconfirmed and time.monotonic() - self._unconfirmed[0][1] > CONFIRM_TIMEOUT:
            raise TimeoutError(f"no confirm within {CONFIRM_TIMEOUT:.0f} seconds")
        through, self._through = self._through, 0
        return through

    def is_lost(self, exc: BaseException) -> bool:
        """Whether another connection may help."""
        errors: Any = self._connection.connection_errors if self._connection else ()
        return isinstance(exc, (OSError, OperationalError, *errors))

    def close(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        self._tag = self._through = 0
        self._unconfirmed.clear()
        self._answered.clear()
        if connection is not None:
            with suppress(Exception):
                connection.collect()

    def _open(self) -> None:
        # Without `confirm_publish`, by which amqp would wait for the confirm of each.
        connection = self._app.connection_for_write(transport_options={"confirm_publish": False})
        self._connection = connection
        connection.ensure_connection(max_retries=1)
        channel: Any = connection.channel()
        exchange = get_exchange(connection, name=self._app.conf.event_exchange)
        exchange(channel).declare()
        self._confirms = connection.transport.driver_type == "amqp"
        if self._confirms:
            channel.confirm_select()
            channel.events["basic_ack"].add(self._on_ack)
            channel.events["basic_nack"].add(self._on_nack)
        self._producer = Producer(channel, exchange=exchange, auto_declare=False)

    def _on_ack(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._answered.update(sent for sent, _ in self._unconfirmed if sent <= tag)
        else:
            self._answered.add(tag)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        """That cannot heal, and no job is to hang on it."""
        log.entries_dropped("the broker refused them")
        self._on_ack(tag, multiple)
