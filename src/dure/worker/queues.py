"""The worker's queues: those that exist are used as they are, new ones are durable, quorum where nobody minds.

A queue that the application itself defines is created as the application defines it: its producers, which know
nothing of Dure, declare it again with each `delay`, and would be refused on a quorum queue that they take for classic.

On RabbitMQ a queue's arguments cannot be asked for, only tried: declaring it with other arguments than it has is
refused with PRECONDITION_FAILED, which also closes the channel, so each try has its own.

    missing?  ── yes ──▶ declare as Dure makes queues, or as the application defines it
       │ no
       ▼
    declare as Dure would ── refused ──▶ as a bare quorum queue ── refused ──▶ as the application says
                                                                                   │ refused
                                                                                   ▼
                                                                       consume without declaring

What was found is written into the application's own `kombu.Queue`, for Celery declares it again on each connection,
before consuming and before publishing. Celery also looks there for a quorum queue: RabbitMQ lets nobody consume
from one with a prefetch count for the whole channel. The last case may be one, so it is noted as one. And we look there
for a dead-letter exchange: where a queue has none, the worker itself sends dead letters on.

A queue that the application wants of a certain kind (a type, priorities, exclusive, not durable) stays as it says.

The embedded broker gives a queue that exists the arguments that it lacks, so there is nothing to try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import ChannelError, NotFound, PreconditionFailed
from celery import Celery
from kombu import Connection, Exchange, Queue
from kombu.common import Broadcast

from dure.settings import Settings
from dure.wire import ENTRIES_KEY, EVENT_EXCHANGE
from dure.worker import consumer_timeout, log
from dure.worker.announce import describe

DEAD_LETTER_EXCHANGE = "x-dead-letter-exchange"

_TYPE = "x-queue-type"
_QUORUM = {_TYPE: "quorum"}


def prepare(app: Celery, settings: Settings) -> None:
    """Declare the queues that the application names, and those of events and dead letters; waits for the broker."""
    with _connection(app) as connection:
        kind = connection.transport.driver_type
        if kind in ("amqp", "dure"):
            declare_dead_letters(connection, settings)
            _declare_event_queue(connection, settings)
        if kind == "amqp":
            defined = _defined(app)
            for queue in list(app.amqp.queues.values()):
                new = settings.new_queue_arguments(defined_by_application=queue.name in defined)
                settle(connection, queue, settings, new)
            _settle_later_ones(app, settings)
            consumer_timeout.warn(connection, app.amqp.queues.consume_from.values())
        if kind == "dure":
            for queue in app.amqp.queues.consume_from.values():
                _keep_dead_letters(queue, settings)
                _try(connection, queue)


def _defined(app: Celery) -> set[str]:
    """The queues that the application itself sends to: its default, `task_queues`, and where its tasks are routed."""
    routed = {task.queue for task in describe(app) if task.queue}
    return {app.conf.task_default_queue, *routed} | {queue.name for queue in app.conf.task_queues or ()}


def settle(connection: Connection, queue: Any, settings: Settings, new: Mapping[str, Any]) -> None:
    """Find out how the queue is to be declared on RabbitMQ, with `new` if it is missing; write it into `queue`."""
    if _particular(queue):
        return
    own = dict(queue.queue_arguments or {})
    if not _exists(connection, queue.name):
        for arguments in ({**new, **own}, {**_kind(new), **own}):  # who may not use the dead letters may have the queue
            queue.queue_arguments = arguments
            if _try(connection, queue) is None:
                break
        return
    ours = settings.new_queue_arguments(defined_by_application=False)
    _find(connection, queue, [{**new, **own}, ours | own, own | _QUORUM, own])


def _kind(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name == _TYPE}


def _find(connection: Connection, queue: Any, candidates: list[Mapping[str, Any]]) -> None:
    """The arguments that the queue exists with, the likeliest first."""
    refusal: Exception | None = None
    tried: list[Mapping[str, Any]] = []
    for arguments in candidates:
        if arguments not in tried:
            tried.append(arguments)
            queue.queue_arguments = arguments
            refusal = _try(connection, queue)
            if refusal is None:
                return
    queue.queue_arguments = {**candidates[-1], **_QUORUM}
    queue.no_declare = True
    log.queue_kept(queue.name, str(refusal))


def _keep_dead_letters(queue: Any, settings: Settings) -> None:
    """On the embedded broker, which has one type of queues."""
    arguments = queue.queue_arguments or {}
    if not queue.no_declare and DEAD_LETTER_EXCHANGE not in arguments and not isinstance(queue, Broadcast):
        limits = {DEAD_LETTER_EXCHANGE: settings.dead_queue, "x-delivery-limit": settings.delivery_limit}
        queue.queue_arguments = limits | arguments


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
    new = settings.new_queue_arguments(defined_by_application=False) if by_quorum else {}
    add: Callable[..., Any] = type(queues).add.__get__(queues)

    def settled(queue: Any, **options: Any) -> Any:
        known = getattr(queue, "name", queue) in queues
        added = add(queue, **options)
        if not known:
            with app.connection_for_write() as connection:
                settle(connection, added, settings, new)
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


def declare_dead_letters(connection: Connection, settings: Settings) -> None:
    """The exchange and the queue that dead letters go to, before any queue points to them."""
    name = settings.dead_queue
    arguments = settings.lasting_queue_arguments() if connection.transport.driver_type == "amqp" else {}
    for declare in (
        lambda channel: Exchange(name, type="fanout", durable=True)(channel).declare(),
        lambda channel: channel.queue_declare(queue=name, durable=True, auto_delete=False, arguments=arguments),
        lambda channel: channel.queue_bind(queue=name, exchange=name, routing_key=""),
    ):
        with _channel(connection) as channel:
            try:
                declare(channel)
            except ChannelError as refusal:
                log.dead_queue_kept(name, str(refusal))


def _declare_event_queue(connection: Connection, settings: Settings) -> None:
    """Where the recorder reads; declared here too so that nothing is missed before a gateway first starts."""
    arguments: dict[str, Any] = {"x-max-length": settings.event_limit}
    if connection.transport.driver_type == "amqp":
        arguments |= {"x-overflow": "drop-head"} | settings.lasting_queue_arguments()
    exchange = Exchange(EVENT_EXCHANGE, type="topic", durable=True)
    with _channel(connection) as channel:
        exchange(channel).declare()
        try:
            channel.queue_declare(queue=settings.event_queue, durable=True, auto_delete=False, arguments=arguments)
        except PreconditionFailed as refusal:
            log.event_queue_kept(settings.event_queue, str(refusal))
    with _channel(connection) as channel:
        for key in ("task.#", "worker.#", ENTRIES_KEY):
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
