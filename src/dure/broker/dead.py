"""Dead letters, as RabbitMQ has them (rabbitmq.com/docs/dlx): what becomes of a message that its queue gives up.

A queue with `x-dead-letter-exchange` does not drop what was rejected, has expired, is over `x-max-length` or was given
back more often than `x-delivery-limit` allows. The message is published to that exchange, in the transaction that
takes it out of its queue, so it is in one place or the other, always and only once. What no queue takes is dropped; so
the exchange and its queue are declared first.

The header `x-death` tells where and why it died, the most recent death first. Dying again in the same queue of the
same reason moves that death to the front and raises its count.

Queues whose dead letters go to one another could pass a message round for ever. It does not enter a queue that it died
in since a client last rejected it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dure.broker.message import CC, Message


class Reason(StrEnum):
    REJECTED = "rejected"
    EXPIRED = "expired"
    MAXLEN = "maxlen"
    DELIVERY_LIMIT = "delivery_limit"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a queue's dead letters go; without a routing key they keep their own, with those in `CC`."""

    exchange: str
    routing_key: str | None


def letter(message: Message, address: Address, queue: str, reason: Reason, now: float) -> Message:
    """The message as it leaves the queue that gave it up; it no longer expires by itself."""
    properties = dict(message.properties)
    expiration = properties.pop("expiration", None)
    death = {
        "count": 1,
        "reason": reason.value,
        "queue": queue,
        "time": int(now),
        "exchange": message.exchange,
        "routing-keys": list(message.routing_keys),
    }
    if expiration not in (None, ""):
        death["original-expiration"] = str(expiration)
    headers = dict(properties.get("headers") or {})
    known = deaths(message)
    if not known:
        headers |= {f"x-first-death-{name}": death[name] for name in ("reason", "queue", "exchange")}
    again = [each for each in known if each.get("queue") == queue and each.get("reason") == reason]
    for each in again[:1]:
        death = {**each, "count": _count(each) + 1}
    headers["x-death"] = [death, *(each for each in known if each not in again)]
    key = message.routing_key
    if address.routing_key is not None:
        key = address.routing_key
        headers.pop(CC, None)
    return Message(address.exchange, key, message.body, {**properties, "headers": headers})


def goes_round(dead: Message, queue: str) -> bool:
    """Whether the letter died in this queue before and no client has rejected it since."""
    for death in deaths(dead):
        if death.get("reason") == Reason.REJECTED:
            return False
        if death.get("queue") == queue:
            return True
    return False


def deaths(message: Message) -> Sequence[Mapping[str, Any]]:
    """A client may have written anything into the header."""
    found = (message.properties.get("headers") or {}).get("x-death")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _count(death: Mapping[str, Any]) -> int:
    count = death.get("count")
    return count if isinstance(count, int) else 0
