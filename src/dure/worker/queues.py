"""The worker's queues: those that exist are used as they are, new ones are durable, quorum where nobody minds.

A queue that the application itself defines is created as the application defines it: its producers, which know
nothing of Dure, declare it again with each `delay`, and would be refused on a quorum queue that they take for classic.

Only RabbitMQ has types of queues. A queue's type cannot be asked for there, only tried: declaring it with other
arguments than it has is refused with PRECONDITION_FAILED, which also closes the channel, so each try has its own.

    missing?  ── yes ──▶ declare as quorum, or as the application defines it
       │ no
       ▼
    declare as quorum ── refused ──▶ declare as the application says ── refused ──▶ consume without declaring

What was found is written into the application's own `kombu.Queue`, for Celery declares it again on each connection,
before consuming and before publishing. Celery also looks there for a quorum queue: RabbitMQ lets nobody consume
from one with a prefetch count for the whole channel. The last case may be one, so it is noted as one.

A queue that the application wants of a certain kind (a type, priorities, exclusive, not durable) stays as it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import ChannelError, NotFound, PreconditionFailed
from celery import Celery
from kombu import Connection, Exchange, Queue
from kombu.common import Broadcast

from dure.settings import Settings
from dure.wire import EVENT_EXCHANGE
from dure.worker import log
from dure.worker.announce import describe

_TYPE = "x-queue-type"
_QUORUM = {_TYPE: "quorum"}


def prepare(app: Celery, settings: Settings) -> None:
    """Declare the queues that the application names, and the event queue; waits for the broker."""
    with _connection(app) as connection:
        kind = connection.transport.driver_type
        if kind == "amqp":
            defined = _defined(app)
            for queue in list(app.amqp.queues.values()):
                settle(connection, queue, settings.new_queue_type(defined_by_application=queue.name in defined))
            _settle_later_ones(app, settings)
        if kind in ("amqp", "dure"):
            _declare_event_queue(connection, settings)


def _defined(app: Celery) -> set[str]:
    """The queues that the application itself sends to: its default, `task_queues`, and where its tasks are routed."""
    routed = {task.queue for task in describe(app) if task.queue}
    return {app.conf.task_default_queue, *routed} | {queue.name for queue in app.conf.task_queues or ()}


def settle(connection: Connection, queue: Any, new_type: str) -> None:
    """Find out how the queue is to be declared on RabbitMQ, and write it into `queue`."""
    if _particular(queue):
        return
    arguments = dict(queue.queue_arguments or {})
    if not _exists(connection, queue.name):
        if new_type == "quorum":
            queue.queue_arguments = arguments | _QUORUM
        _try(connection, queue)
        return
    queue.queue_arguments = arguments | _QUORUM
    if _try(connection, queue) is None:
        return
    queue.queue_arguments = arguments
    refusal = _try(connection, queue)
    if refusal is not None:
        queue.queue_arguments = arguments | _QUORUM
        queue.no_declare = True
        log.queue_kept(queue.name, str(refusal))


def _particular(queue: Any) -> bool:
    arguments = queue.queue_arguments or {}
    return bool(
        queue.no_declare
        or queue.exclusive
        or queue.auto_delete
        or not queue.durable
        or queue.max_priority is not None
        or _TYPE in arguments
        or "x-max-priority" in arguments
        or isinstance(queue, Broadcast)
    )


def _settle_later_ones(app: Celery, settings: Settings) -> None:
    """A queue that the worker first hears of at run time: a task's route, or remote control's add_consumer.

    It becomes a quorum queue only where the worker consumes from one already. A worker that consumes from classic ones
    has a prefetch count for its whole channel, and RabbitMQ would cut the connection.
    """
    queues: Any = app.amqp.queues
    by_quorum = any((queue.queue_arguments or {}).get(_TYPE) == "quorum" for queue in queues.values())
    new_type = settings.queue_type if by_quorum else "classic"
    add: Callable[..., Any] = type(queues).add.__get__(queues)

    def settled(queue: Any, **options: Any) -> Any:
        known = getattr(queue, "name", queue) in queues
        added = add(queue, **options)
        if not known:
            with app.connection_for_write() as connection:
                settle(connection, added, new_type)
        return added

    queues.add = settled


def _exists(connection: Connection, name: str) -> bool:
    with _channel(connection) as channel:
        try:
            channel.queue_declare(queue=name, passive=True)
        except NotFound:
            return False
        except ChannelError:
            return True
    return True


def _try(connection: Connection, queue: Queue) -> Exception | None:
    with _channel(connection) as channel:
        try:
            queue(channel).declare()
        except ChannelError as refusal:
            return refusal
    return None


def _declare_event_queue(connection: Connection, settings: Settings) -> None:
    """Where the recorder reads; declared here too so that nothing is missed before a gateway first starts."""
    arguments: dict[str, Any] = {"x-max-length": settings.event_limit}
    if connection.transport.driver_type == "amqp":
        arguments |= {"x-overflow": "drop-head"}
        if settings.queue_type == "quorum":
            arguments |= _QUORUM
    exchange = Exchange(EVENT_EXCHANGE, type="topic", durable=True)
    with _channel(connection) as channel:
        exchange(channel).declare()
        try:
            channel.queue_declare(queue=settings.event_queue, durable=True, auto_delete=False, arguments=arguments)
        except PreconditionFailed as refusal:
            log.event_queue_kept(settings.event_queue, str(refusal))
    with _channel(connection) as channel:
        for key in ("task.#", "worker.#"):
            channel.queue_bind(queue=settings.event_queue, exchange=EVENT_EXCHANGE, routing_key=key)


@contextmanager
def _channel(connection: Connection) -> Iterator[Any]:
    channel: Any = connection.channel()
    try:
        yield channel
    finally:
        if connection.connected:
            channel.close()


@contextmanager
def _connection(app: Celery) -> Iterator[Connection]:
    retry = app.conf.broker_connection_retry_on_startup is not False
    with app.connection_for_write() as connection:
        if retry:
            connection.ensure_connection(errback=log.broker_away)
        else:
            connection.connect()
        yield connection
