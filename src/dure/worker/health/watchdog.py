"""Looks each second whether jobs can still arrive, and has Celery's consumer start anew where they cannot.

Celery notices a connection that ends. It does not notice

    a consumer that was cancelled, or a channel that was closed, while it read for something else
    a connection that neither ends nor brings anything: a firewall that forgot it, a line that was cut
    a broker that has no consumer of ours any more, or gives it nothing

For the first, py-amqp's books are looked at. For the others a worker that has room, and was sent nothing for a second,
asks the broker about its queues: an answer must come, and where jobs wait, one of them must be delivered. A worker
that is kept busy asks nothing.

All of it happens on the consumer's loop, and patience is counted in looks: where the loop stood still, nobody is blamed
for answers that were not read. A restart that brought nothing is followed by a growing pause, for there are queues that
give their messages to others, such as those with a single active consumer.
"""

from __future__ import annotations

import time
from typing import Any

from amqp import spec
from amqp.exceptions import RecoverableConnectionError
from celery import bootsteps
from celery.bootsteps import RUN  # type: ignore[attr-defined]
from celery.worker.consumer.tasks import Tasks

from dure.worker import log
from dure.worker.health.asking import Asking
from dure.worker.health.health import Health
from dure.worker.reconnect import sever

_EVERY = 1.0
_ASK_EVERY = 2  # looks
_PATIENCE = 3  # looks
_PAUSES = (5.0, 300.0)
_NOT_FOUND = "404"


class Watch:
    """Over one connection of the consumer."""

    def __init__(self, consumer: Any, health: Health) -> None:
        self._consumer = consumer
        self._health = health
        self._tasks = consumer.task_consumer
        self._channel = self._tasks.channel
        self._asking = Asking(consumer.connection.channel())
        self._closed: str | None = None
        self._delivered = self._seen = 0
        self._received = 0
        self._quiet = self._silent = self._starved = 0
        self._count_deliveries()
        self._note_close()

    @property
    def has_delivered(self) -> bool:
        return self._delivered > 0

    def fault(self) -> str | None:
        """Why no job can arrive, as far as can be seen."""
        consumer = self._consumer
        if consumer.connection is None or consumer.blueprint.state != RUN or not self._tasks._active_tags:
            return None
        if self._closed is not None:
            return f"the broker closed its channel: {self._closed}"
        if not consumer.connection.connected:
            return "the connection is closed"
        tags = self._tasks._active_tags
        if lost := sorted(queue for queue, tag in tags.items() if tag not in self._channel.callbacks):
            return f"the broker cancelled the consumer of {', '.join(lost)}"
        return self._ask()

    def _ask(self) -> str | None:
        asking = self._asking
        if asking.refusal is not None:  # who may not look at a queue goes without an answer
            return f"the broker refuses its queue: {asking.refusal}" if asking.refusal.startswith(_NOT_FOUND) else None
        if not self._is_quiet:
            self._quiet = self._silent = self._starved = 0
            return None
        self._quiet += 1
        if asking.is_open:
            self._silent = 0 if self._has_received else self._silent + 1
            return "the broker does not answer" if self._silent >= _PATIENCE else None
        if starving := sorted(queue for queue, told in asking.told.items() if told.ready or not told.consumers):
            self._starved += 1
            if self._starved >= _PATIENCE:
                return f"nothing is delivered from {', '.join(starving)}"
        else:
            self._starved = 0
        if starving or self._quiet % _ASK_EVERY == 1:
            self._silent = 0
            self._note_received()
            asking.ask([*self._tasks._active_tags])
        return None

    @property
    def _is_quiet(self) -> bool:
        """It has room, and nothing came since the last look."""
        seen, self._seen = self._seen, self._delivered
        return seen == self._delivered and self._health.has_room(self._consumer)

    @property
    def _has_received(self) -> bool:
        return self._received != self._note_received()

    def _note_received(self) -> int:
        self._received = self._channel.connection.bytes_recv
        return self._received

    def _count_deliveries(self) -> None:
        receive = self._tasks._receive_callback

        def counted(message: Any) -> Any:
            self._delivered += 1
            return receive(message)

        self._tasks._receive_callback = counted

    def _note_close(self) -> None:
        """py-amqp opens a closed channel again, without what was consumed by it."""
        on_close = self._channel._callbacks[spec.Channel.Close]

        def noted(code: int, text: str, *rest: Any) -> Any:
            self._closed = f"{code} {text}"
            return on_close(code, text, *rest)

        self._channel._callbacks[spec.Channel.Close] = noted


def watchdog_step(health: Health) -> type[bootsteps.StartStopStep]:
    class Watchdog(bootsteps.StartStopStep):
        name = "dure.worker.Watchdog"
        requires = (Tasks,)

        def __init__(self, consumer: Any, **options: Any) -> None:
            super().__init__(consumer, **options)
            self._watch: Watch | None = None
            self._timer: Any = None
            self._pause, self._longest_pause = _PAUSES
            self._not_before = 0.0

        def start(self, consumer: Any) -> None:
            health.connected(consumer)
            self._watch = Watch(consumer, health) if consumer.connection.transport.driver_type == "amqp" else None
            self._timer = consumer.timer.call_repeatedly(_EVERY, self._look, (consumer,))

        def stop(self, consumer: Any) -> None:
            health.lost()
            timer, self._timer = self._timer, None
            if timer is not None:
                consumer.timer.cancel(timer)

        def _look(self, consumer: Any) -> None:
            if consumer.hub is None:  # the timer is a thread
                consumer.call_soon(health.turned)
            else:
                health.turned()
            if self._watch is None:
                return
            if self._watch.has_delivered:
                self._pause = _PAUSES[0]
            if (why := self._watch.fault()) is not None and time.monotonic() >= self._not_before:
                self._not_before = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, self._longest_pause)
                self._restart(consumer, why)

        def _restart(self, consumer: Any, why: str) -> None:
            health.restarting(why)
            log.consumption_restarts(why)
            self._watch = None
            sever(consumer.connection)
            if consumer.hub is not None:
                raise RecoverableConnectionError(f"nothing can be consumed: {why}")

    return Watchdog
