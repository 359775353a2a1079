"""What Dure asks of a broker. RabbitMQ and the embedded broker answer one conformance suite.

Every publish is confirmed and mandatory: it returns when the broker has the message, and raises Unroutable when no
queue takes it. Publishes of one batch travel together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from dure.node import QueueDepth
from dure.wire import Message

EventBatch = Sequence[bytes]


class EventFeed(Protocol):
    """Events in, for one reader. Leaving the context ends the reading; unacknowledged events are given again."""

    async def batch(self, limit: int) -> EventBatch:
        """Wait for the next bodies: what is there, at least one. Raises LinkDown when the broker goes."""
        ...

    async def ack(self) -> None:
        """Everything that `batch` gave so far is settled."""
        ...

    async def close(self) -> None: ...


class Link(Protocol):
    """A connection to one broker that mends itself; every call raises LinkDown while it is away."""

    url: str

    @property
    def connected(self) -> bool: ...

    async def open(self) -> None:
        """Begin to connect; returns without waiting for a broker that is away."""
        ...

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Raises LinkDown where the broker does not answer."""
        ...

    async def publish(self, messages: Sequence[Message]) -> Sequence[BaseException | None]:
        """Publish a batch; for each message None once confirmed, else Unroutable or LinkDown."""
        ...

    async def declare_queue(self, name: str, *, defined_by_application: bool = False) -> None:
        """Use the queue if it exists, else create it, durable; one that the Celery application defines as Celery
        would (see `Settings.new_queue_type`). Raises QueueRefused where the broker lets nobody."""
        ...

    async def queues(self, names: Iterable[str]) -> Sequence[QueueDepth]: ...

    async def events(self, patterns: Sequence[str], *, durable: bool) -> EventFeed:
        """Read Celery's event exchange by topic patterns.

        A durable feed is the recorder's one queue, shared by every reader and kept while none reads; the other kind
        is this reader's own and goes with it.
        """
        ...

    async def broadcast(
        self,
        method: str,
        arguments: Mapping[str, Any],
        *,
        destination: Sequence[str] | None = None,
        timeout: float = 1.0,
    ) -> Mapping[str, Any]:
        """Ask workers by remote control; the replies by hostname that came in time. `timeout=0` asks for none."""
        ...
