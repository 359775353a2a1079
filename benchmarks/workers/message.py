from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from amqp.basic_message import Message as AmqpMessage
from kombu import Connection


@dataclass(frozen=True, slots=True)
class Message:
    """As the framework itself would send it."""

    exchange: str
    routing_key: str
    body: bytes
    headers: dict[str, Any]
    properties: dict[str, Any]


def publish(broker: str, messages: Iterable[Message]) -> None:
    """All of them, by one fast client; returns when the broker has them."""
    with Connection(broker, transport_options={"confirm_publish": False}) as connection:
        channel: Any = connection.channel()
        for message in messages:
            sent = AmqpMessage(message.body, application_headers=message.headers, delivery_mode=2, **message.properties)
            channel._basic_publish(sent, exchange=message.exchange, routing_key=message.routing_key)
        channel.close()  # answered after all that was sent on it
