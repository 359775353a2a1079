"""Messages that the worker sends anew: confirmed by the broker, on a connection of its own.

It is used in the outbox's thread only, where waiting for a confirm keeps nobody from working.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from kombu import Connection

_CONFIRM_TIMEOUT = 30.0
_PROPERTIES = (
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "app_id",
)


class Post:
    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._channel: Any = None

    def send(self, message: Any, headers: Mapping[str, Any], exchange: str, routing_key: str) -> None:
        """Publish a copy of a message; returns when the broker has it in a queue, and raises otherwise."""
        self.use(lambda _, channel: _publish(channel, message, headers, exchange, routing_key))

    def use(self, action: Callable[[Connection, Any], None]) -> None:
        """Do something with the connection and its channel; once more where they may have been lost long ago."""
        was_open = self._connection is not None
        try:
            self._try(action)
        except Exception:
            if not was_open:
                raise
            self._try(action)

    def _try(self, action: Callable[[Connection, Any], None]) -> None:
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._channel = self._connection.channel()
            action(self._connection, self._channel)
        except Exception:
            self._close()  # a confirmation that still comes would be taken for the next message's
            raise

    def _close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                connection.collect()


def _publish(channel: Any, message: Any, headers: Mapping[str, Any], exchange: str, routing_key: str) -> None:
    properties = {name: message.properties[name] for name in _PROPERTIES if message.properties.get(name) is not None}
    copy = channel.prepare_message(
        message.body,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=dict(headers),
        priority=properties.pop("priority", None),
        properties=properties,
    )
    publish = getattr(channel, "basic_publish_confirm", channel.basic_publish)
    publish(copy, exchange=exchange, routing_key=routing_key, mandatory=True, confirm_timeout=_CONFIRM_TIMEOUT)
