"""What goes into the broker and what comes out of it, as frozen values, with their form in the file."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

HIGHEST_PRIORITY = 9
_BYTES = "$base64"
CC = "CC"
BCC = "BCC"


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `properties` are AMQP's, with `headers`, `content_type` and `content_encoding` among them.

    `body` comes out as it went in, `str` or `bytes`. `properties["priority"]` is 0 to 9, higher first;
    `properties["expiration"]` is a time to live in milliseconds, as AMQP has it.
    """

    exchange: str
    routing_key: str
    body: bytes | str
    properties: Mapping[str, Any] = field(default_factory=dict)

    @property
    def priority(self) -> int:
        try:
            return max(0, min(int(self.properties.get("priority") or 0), HIGHEST_PRIORITY))
        except (TypeError, ValueError):
            return 0

    @property
    def routing_keys(self) -> tuple[str, ...]:
        """Its own, and those in its headers `CC` and `BCC`, which publish to several at once as on RabbitMQ."""
        headers = self.properties.get("headers") or {}
        found = [self.routing_key]
        for further in (headers.get(CC), headers.get(BCC)):
            if isinstance(further, list | tuple):
                found += [key for key in further if isinstance(key, str)]
        return tuple(found)

    @property
    def given_properties(self) -> Mapping[str, Any]:
        """What whoever gets it is told: no `BCC`."""
        headers = self.properties.get("headers")
        if not headers or BCC not in headers:
            return self.properties
        return {**self.properties, "headers": {name: value for name, value in headers.items() if name != BCC}}

    @property
    def time_to_live(self) -> float | None:
        """Seconds, or None when the message does not expire by itself."""
        expiration = self.properties.get("expiration")
        return None if expiration in (None, "") else int(expiration) / 1000


@dataclass(frozen=True, slots=True)
class Delivery:
    """One claim of a message: `tag` is what to acknowledge, `deliveries` counts this one too."""

    tag: int
    queue: str
    deliveries: int
    message: Message

    @property
    def redelivered(self) -> bool:
        return self.deliveries > 1


@dataclass(frozen=True, slots=True)
class Claim:
    """A wish for up to `limit` messages from `queues`; with `no_ack` they are gone when claimed."""

    queues: tuple[str, ...]
    limit: int
    no_ack: bool = False


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """`messages` are the ready ones; `dropped` were pushed out by `x-max-length` since the queue was made."""

    name: str
    messages: int
    consumers: int
    dropped: int = 0


def job_of(properties: Mapping[str, Any]) -> str | None:
    """The job that a message is of: the header `id`, as Celery's protocol 2 has it, else the correlation id."""
    job = (properties.get("headers") or {}).get("id") or properties.get("correlation_id")
    return job if isinstance(job, str) else None


def encode_properties(properties: Mapping[str, Any]) -> str:
    return json.dumps(properties, separators=(",", ":"), default=_plain)


def decode_properties(text: str) -> dict[str, Any]:
    # Bytes are rare in properties, and a hook makes every decode slower.
    decoded: dict[str, Any] = json.loads(text, object_hook=_bytes_back) if _BYTES in text else json.loads(text)
    return decoded


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {_BYTES: base64.b64encode(value).decode()}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return list(value)
    return str(value)


def _bytes_back(value: dict[str, Any]) -> Any:
    return base64.b64decode(value[_BYTES]) if value.keys() == {_BYTES} else value
