"""No worker begins a job that was cancelled before: the log of cancelled jobs is read before the first message.

On RabbitMQ the log is a stream (see `dure.revocation`). Where its end is cannot be asked for; so the worker writes a
marker into it and reads until it meets its own, and goes on reading from there as long as the connection lives. After
a reconnect it reads on behind the last entry that it has. On the embedded broker the log is a table, looked at once a
second.

What is read before the first message goes into Celery's own set of revoked ids. What comes later also ends the jobs
that run, if the cancellation says so and the pool can.

A broker that has no streams, or does not let us use one, is told of once; remote control still reaches the workers that
run.
"""

from __future__ import annotations

import logging
import time
from typing import Any
from uuid import uuid4

import msgspec
from amqp.exceptions import ChannelError, IrrecoverableConnectionError, MessageNacked, NotFound
from celery import bootsteps
from celery.worker import state
from celery.worker.consumer.mingle import Mingle
from celery.worker.consumer.tasks import Tasks

from dure.revocation import KEPT, STREAM, STREAM_ARGUMENTS, Revocation, read
from dure.worker import log

_MOST = 200_000
_PREFETCH = 2000
_ACKNOWLEDGE_EVERY = 500
_STALLED = 5.0  # seconds without an entry, while the marker is waited for
_LOOK_EVERY = 1.0


def _tells_something(record: logging.LogRecord) -> bool:
    """Celery warns of each revoked job that no result backend can be told of, also where there is none."""
    return not (isinstance(record.args, tuple) and any(isinstance(arg, NotImplementedError) for arg in record.args))


class Revocations(bootsteps.StartStopStep):
    name = "dure.worker.Revocations"
    requires = (Mingle,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        state.revoked.maxlen, state.revoked.expires = max(state.revoked.maxlen, _MOST), KEPT
        logging.getLogger("celery.worker.control").addFilter(_tells_something)
        self._after: int | None = None
        self._refused = False
        self._timer: Any = None

    def include(self, parent: Any) -> Any:
        """Celery lets a step say what goes before it, not what comes after."""
        included = super().include(parent)
        places = [place for place, step in enumerate(parent.steps) if isinstance(step, Tasks)]
        if included and places:
            parent.steps.remove(self)
            parent.steps.insert(places[0], self)
        return included

    def start(self, consumer: Any) -> None:
        kind = consumer.connection.transport.driver_type
        if kind == "dure":
            self._look(consumer, first=True)
            self._timer = consumer.timer.call_repeatedly(_LOOK_EVERY, self._look, (consumer,))
        elif kind == "amqp":
            try:
                self._read_stream(consumer)
            except (ChannelError, IrrecoverableConnectionError, MessageNacked) as refusal:
                if not self._refused:
                    log.revocations_unread(refusal)
                self._refused = True

    def stop(self, consumer: Any) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            consumer.timer.cancel(timer)

    def _look(self, consumer: Any, first: bool = False) -> None:
        try:
            entries = consumer.connection.default_channel.revocations(self._after or 0)
        except Exception as exc:
            if first:
                raise
            log.revocations_late(exc)
            return
        for position, revocation in entries:
            self._after = position
            apply(consumer, revocation, late=not first)

    def _read_stream(self, consumer: Any) -> None:
        marker = msgspec.json.encode({"marker": uuid4().hex})
        # On a connection of its own: a broker without streams may cut it.
        with consumer.app.connection_for_write() as connection:
            try:
                connection.channel().queue_declare(queue=STREAM, passive=True)
            except NotFound:
                connection.channel().queue_declare(
                    queue=STREAM, durable=True, auto_delete=False, arguments=STREAM_ARGUMENTS
                )
            channel = connection.channel()
            message = channel.prepare_message(marker, content_type="application/json", properties={"delivery_mode": 2})
            channel.basic_publish_confirm(message, exchange="", routing_key=STREAM, mandatory=True)
        # From the start where it is another stream than the one that we read before.
        if not (self._read_to(consumer, marker, self._after) or self._read_to(consumer, marker, None)):
            log.revocations_unread(TimeoutError("the stream gives nothing"))

    def _read_to(self, consumer: Any, marker: bytes, after: int | None) -> bool:
        channel = consumer.connection.channel()
        channel.basic_qos(0, _PREFETCH, False)
        met, again = False, self._after is not None
        moved = time.monotonic()

        def on_entry(message: Any) -> None:
            nonlocal met, moved
            moved = time.monotonic()
            offset = message.headers.get("x-stream-offset")
            body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
            if body == marker:
                met = True
            elif (revocation := read(body)) is not None:
                apply(consumer, revocation, late=met or again)
            if isinstance(offset, int):
                self._after = offset
            if met or message.delivery_tag % _ACKNOWLEDGE_EVERY == 0:
                channel.basic_ack(message.delivery_tag, multiple=True)

        start = "first" if after is None else after + 1
        tag = channel.basic_consume(queue=STREAM, callback=on_entry, arguments={"x-stream-offset": start})
        while not met and time.monotonic() - moved < _STALLED:
            try:
                consumer.connection.drain_events(timeout=1.0)
            except TimeoutError:
                continue
        if not met:
            channel.basic_cancel(tag)
            channel.close()
        return met


def apply(consumer: Any, revocation: Revocation, *, late: bool) -> None:
    """As Celery's own `revoke` does it; a result backend is told when a worker meets the job."""
    state.revoked.update(revocation.ids)
    if not (late and revocation.terminate):
        return
    for job_id in revocation.ids:
        request = state.requests.get(job_id)
        if request is not None:
            try:
                request.terminate(consumer.pool, signal="TERM")
            except Exception as exc:
                log.not_terminated(job_id, exc)
