"""The log of cancelled jobs, kept by the broker.

Celery keeps revoked ids in the memory of the workers that run at that moment. So that a cancelled job stays cancelled
whoever restarts, each cancellation is also written into a log that every one of Dure's workers reads from its start
before it takes the first message, and goes on reading: a stream on RabbitMQ, a table in the embedded broker's file.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

STREAM = "dure.revoked"
KEPT = 30 * 86_400.0  # seconds; a message that waits longer than that is not known to be cancelled any more

# On RabbitMQ. Whole segments are forgotten, so they are small.
STREAM_ARGUMENTS: dict[str, Any] = {
    "x-queue-type": "stream",
    "x-max-age": f"{int(KEPT // 86_400)}D",
    "x-stream-max-segment-size-bytes": 1_000_000,
}


class Revocation(Struct, frozen=True, kw_only=True):
    """Jobs that nobody may begin any more; those that run are ended where `terminate` says so and the pool can."""

    ids: tuple[str, ...]
    terminate: bool = False
    at: float = 0.0


def encode(revocation: Revocation) -> bytes:
    return msgspec.json.encode(revocation)


def read(body: bytes) -> Revocation | None:
    """None for what is no revocation."""
    try:
        return msgspec.json.decode(body, type=Revocation)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
