"""A kombu channel over the store: declarations, publishing, consumers with a prefetch, and settlement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqp.exceptions import (
    NotFound,
    PreconditionFailed,
    RecoverableConnectionError,
    ResourceLocked,
    error_for_code,
)
from amqp.protocol import queue_declare_ok_t
from kombu.exceptions import ChannelError
from kombu.message import Message as KombuMessage
from kombu.transport import base
from kombu.transport.base import to_rabbitmq_queue_arguments  # type: ignore[attr-defined]

from dure.broker.errors import ExchangeMismatch, QueueLocked, QueueNotFound
from dure.broker.message import Claim, Delivery, Message
from dure.revocation import Revocation

if TYPE_CHECKING:
    from dure.broker.transport import Transport

_KombuMessage: Any = KombuMessage  # its annotations know neither bytes nor AMQP's numbers as delivery tags

_UNLIMITED_BATCH = 128  # how many to claim at once for a consumer without a prefetch limit
_NO_ROUTE = 312


@dataclass(frozen=True, slots=True)
class _Consumer:
    tag: str
    queue: str
    no_ack: bool
    callback: Callable[[KombuMessage], object]


class Channel(base.StdChannel):
    def __init__(self, transport: Transport, channel_id: int) -> None:
        self.connection: Transport | None = transport
        self.channel_id = channel_id
        self.events: defaultdict[str, set[Callable[..., object]]] = defaultdict(set)
        self.no_ack_consumers: set[str] = set()
        self._transport = transport
        self._store = transport.store
        self._settler = transport.settler
        self._consumers: dict[str, _Consumer] = {}
        self._prefetch = 0
        # Claimed and not settled, oldest first; pool threads settle while the loop claims.
        self._unacked: dict[int, None] = {}

    @property
    def is_open(self) -> bool:
        return self.connection is not None

    # Declarations.

    def exchange_declare(
        self,
        exchange: str,
        type: str = "direct",
        durable: bool = False,
        auto_delete: bool = False,
        passive: bool = False,
        **_: Any,
    ) -> None:
        if passive:
            if not self._store.exchange_exists(exchange):
                raise NotFound(f"NOT_FOUND - no exchange {exchange!r}", (40, 10), "Channel.exchange_declare")
        elif exchange:
            with _amqp_errors():
                self._store.declare_exchange(exchange, type or "direct", durable=durable, auto_delete=auto_delete)

    def exchange_delete(self, exchange: str, **_: Any) -> None:
        self._store.delete_exchange(exchange)

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> queue_declare_ok_t:
        with _amqp_errors():
            if passive:
                depth = self._store.depth(queue)
                if depth is None:
                    raise QueueNotFound(queue)
            else:
                depth = self._store.declare_queue(
                    queue or "",
                    durable=durable,
                    exclusive=exclusive,
                    auto_delete=auto_delete,
                    arguments=arguments,
                )
        return queue_declare_ok_t(depth.name, depth.messages, depth.consumers)

    def queue_bind(self, queue: str, exchange: str = "", routing_key: str = "", **_: Any) -> None:
        with _amqp_errors():
            self._store.bind(queue, exchange, routing_key or "")

    def queue_unbind(self, queue: str, exchange: str = "", routing_key: str = "", **_: Any) -> None:
        with _amqp_errors():
            self._store.unbind(queue, exchange, routing_key or "")

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> int:
        return self._store.delete_queue(queue, if_unused=if_unused, if_empty=if_empty)

    def queue_purge(self, queue: str, **_: Any) -> int:
        with _amqp_errors():
            return self._store.purge(queue)

    def list_bindings(self) -> list[tuple[str, str, str]]:
        return self._store.bindings()

    def prepare_queue_arguments(self, arguments: dict[str, Any] | None, **options: Any) -> dict[str, Any]:
        prepared: dict[str, Any] = to_rabbitmq_queue_arguments(arguments or {}, **options)
        return prepared

    # Cancelled jobs.

    def revocations(self, after: int = 0) -> list[tuple[int, Revocation]]:
        """What the log of cancelled jobs holds past a position, each with its own position, in their order."""
        return self._store.revocations(after)

    # Publishing.

    def prepare_message(
        self,
        body: bytes | str,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> tuple[bytes | str, dict[str, Any]]:
        known = {
            **(properties or {}),
            "priority": priority,
            "content_type": content_type,
            "content_encoding": content_encoding,
            "headers": headers or {},
        }
        return body, {name: value for name, value in known.items() if value is not None}

    def basic_publish(
        self,
        message: tuple[bytes | str, dict[str, Any]],
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        **_: Any,
    ) -> None:
        body, properties = message
        (reached,) = self._store.publish([Message(exchange or "", routing_key or "", body, properties)])
        if mandatory and not reached:
            self._return(exchange, routing_key, message)

    def _return(self, exchange: str, routing_key: str, message: object) -> None:
        error = error_for_code(_NO_ROUTE, "NO_ROUTE", (60, 50), ChannelError)
        handlers = self.events["basic_return"]
        if not handlers:
            raise error
        for handler in list(handlers):
            handler(error, exchange, routing_key, message)

    # Consuming.

    def basic_consume(
        self,
        queue: str,
        no_ack: bool = False,
        callback: Callable[[KombuMessage], object] = lambda _: None,
        consumer_tag: str = "",
        **_: Any,
    ) -> str:
        with _amqp_errors():
            # Tags are a channel's own in AMQP, and a session's in the store.
            self._store.consume(queue, tag=self._session_tag(consumer_tag))
        self._consumers[consumer_tag] = _Consumer(consumer_tag, queue, no_ack, callback)
        if no_ack:
            self.no_ack_consumers.add(consumer_tag)
        self._transport.look()
        return consumer_tag

    def basic_cancel(self, consumer_tag: str, **_: Any) -> None:
        consumer = self._consumers.pop(consumer_tag, None)
        self.no_ack_consumers.discard(consumer_tag)
        if consumer is not None and not self._transport.is_inherited:
            # First what it did not see, then the consumer: an auto-delete queue goes with it.
            unseen = self._transport.withdraw(self, consumer_tag)
            for tag in unseen:
                self._unacked.pop(tag, None)
            if unseen:
                self._store.give_back_unseen(unseen)
            self._store.cancel(self._session_tag(consumer_tag))

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> KombuMessage | None:
        self._settler.flush()
        for delivery in self._store.claim([queue], 1, no_ack=no_ack):
            if not no_ack:
                self._unacked[delivery.tag] = None
            return self._to_kombu(delivery, None)
        return None

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        self._prefetch = prefetch_count
        self._transport.look()

    def claims(self) -> Iterator[Claim]:
        """What this channel's consumers want now."""
        settling = {c.queue: None for c in self._consumers.values() if not c.no_ack}
        free = self._prefetch - len(self._unacked) if self._prefetch else _UNLIMITED_BATCH
        if settling and free > 0:
            yield Claim(tuple(settling), free)
        unsettling = {c.queue: None for c in self._consumers.values() if c.no_ack}
        if unsettling:
            yield Claim(tuple(unsettling), _UNLIMITED_BATCH, no_ack=True)

    def accept(self, delivery: Delivery, no_ack: bool) -> str:
        """Take a claimed message in; answers the tag of the consumer it is for."""
        if not no_ack:
            self._unacked[delivery.tag] = None
        tag = next(c.tag for c in self._consumers.values() if c.queue == delivery.queue and c.no_ack == no_ack)
        # The next message of the queue is for its next consumer on this channel.
        self._consumers[tag] = self._consumers.pop(tag)
        return tag

    def deliver(self, consumer_tag: str, delivery: Delivery) -> None:
        consumer = self._consumers[consumer_tag]
        consumer.callback(self._to_kombu(delivery, consumer_tag))

    def message_to_python(self, message: KombuMessage) -> KombuMessage:
        return message

    def _to_kombu(self, delivery: Delivery, consumer_tag: str | None) -> KombuMessage:
        message = delivery.message
        properties = dict(message.properties)
        delivery_info = {
            "consumer_tag": consumer_tag,
            "delivery_tag": delivery.tag,
            "redelivered": delivery.redelivered,
            "exchange": message.exchange,
            "routing_key": message.routing_key,
        }
        message_of_kombu: KombuMessage = _KombuMessage(
            body=message.body,
            channel=self,
            delivery_tag=delivery.tag,
            content_type=properties.pop("content_type", None),
            content_encoding=properties.pop("content_encoding", None),
            headers=_counted(properties.pop("headers", None), delivery),
            delivery_info=delivery_info,
            properties={**properties, "delivery_info": delivery_info},
            postencode="utf-8",
        )
        return message_of_kombu

    # Settling; from any thread.

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        self._must_be_open()
        for tag in self._settled(delivery_tag, multiple):
            self._settler.add(tag)
        self._transport.look()

    def basic_reject(self, delivery_tag: int, requeue: bool = False, multiple: bool = False) -> None:
        self._must_be_open()
        self._store.reject(self._settled(delivery_tag, multiple), requeue=requeue)
        self._transport.look()

    def basic_recover(self, requeue: bool = True) -> None:
        """Everything delivered and unsettled goes back, to be delivered again."""
        self._give_back(list(self._unacked))
        self._transport.forget(self)

    def _must_be_open(self) -> None:
        # The message is another consumer's by now; Celery logs this one, and the task runs again.
        if self.connection is None:
            raise RecoverableConnectionError("the channel is closed")

    def _settled(self, delivery_tag: int, multiple: bool) -> list[int]:
        if not multiple:
            return [delivery_tag] if self._unacked.pop(delivery_tag, 0) is None else []
        tags = []
        for tag in list(self._unacked):
            tags.append(tag)
            self._unacked.pop(tag, None)
            if tag == delivery_tag:
                break
        return tags

    def _give_back(self, tags: list[int]) -> None:
        for tag in tags:
            self._unacked.pop(tag, None)
        if tags:
            self._store.reject(tags, requeue=True)

    def flow(self, active: bool = True) -> None:
        """Accepted, as RabbitMQ does; the prefetch is what limits a consumer."""

    def close(self) -> None:
        transport, self.connection = self.connection, None
        if transport is None:
            return
        transport.close_channel(self)
        if transport.is_inherited or not transport.is_open:
            return
        transport.forget(self)
        self._settler.flush()
        self._give_back(list(self._unacked))
        for tag in list(self._consumers):
            self.basic_cancel(tag)

    def _session_tag(self, consumer_tag: str) -> str:
        return f"{self.channel_id}/{consumer_tag}"


@contextmanager
def _amqp_errors() -> Iterator[None]:
    try:
        yield
    except QueueNotFound as error:
        raise NotFound(str(error), (50, 10), "Channel.queue_declare") from error
    except QueueLocked as error:
        raise ResourceLocked(str(error), (50, 10), "Channel.queue_declare") from error
    except ExchangeMismatch as error:
        raise PreconditionFailed(str(error), (40, 10), "Channel.exchange_declare") from error


def _counted(headers: Mapping[str, Any] | None, delivery: Delivery) -> Mapping[str, Any] | None:
    """With the count of deliveries before this one, as RabbitMQ's quorum queues tell it."""
    return {**(headers or {}), "x-delivery-count": delivery.deliveries - 1} if delivery.redelivered else headers
