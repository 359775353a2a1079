"""What Dure asks of a broker. RabbitMQ and the embedded broker answer one conformance suite.

Every publish is confirmed and mandatory: it returns when the broker has the message, and raises Unroutable when no
queue takes it. Publishes of one batch travel together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from dure.dead import DeadLetter
from dure.node import QueueDepth
from dure.wire import Message

Item_co = TypeVar("Item_co", covariant=True)

WATCH_LIMIT = 10_000


class Feed(Protocol[Item_co]):
    """Messages in, for one reader, as what they hold. What is not acknowledged is given again."""

    async def batch(self, limit: int, within: float | None = None) -> Sequence[Item_co]:
        """Wait for the next ones: what is there, at least one, or none `within` seconds. Raises LinkDown when the
        broker goes."""
        ...

    async def ack(self) -> None:
        """Everything that `batch` gave so far is settled."""
        ...

    async def close(self) -> None: ...


EventFeed = Feed[bytes]


class WatchFeed(Feed[bytes], Protocol):
    """Reads what the event exchange has under the keys it is bound to at the time, once each however many match.

    It is its reader's own and goes with it, acknowledges nothing, and is bounded: where its reader is slow the oldest
    messages are dropped. After LinkDown there is nothing left of it.
    """

    async def bind(self, keys: Collection[str]) -> None:
        """Return when the broker has them: what is published from here on arrives. Keys are topic patterns."""
        ...

    async def unbind(self, keys: Collection[str]) -> None:
        """What is published from here on may still arrive for a while."""
        ...


class Link(Protocol):
    """A connection to one broker that mends itself; every call raises LinkDown while it is away."""

    url: str

    @property
    def connected(self) -> bool:
        """Whether messages can be published now: a broker that blocks its publishers is not connected."""
        ...

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
        would (see `Settings.new_queue_arguments`). Raises QueueRefused where the broker lets nobody."""
        ...

    async def holds(self, queue: str, ids: Sequence[str]) -> frozenset[str] | None:
        """Which of these jobs have a message in the queue, waiting or with a worker; None where the broker cannot
        tell."""
        ...

    async def queues(self, names: Iterable[str]) -> Sequence[QueueDepth]: ...

    async def events(self, patterns: Sequence[str], *, durable: bool) -> EventFeed:
        """Read Celery's event exchange by topic patterns.

        A durable feed is the recorder's one queue, shared by every reader and kept while none reads; the other kind
        is this reader's own and goes with it.
        """
        ...

    async def watch(self, *, limit: int = WATCH_LIMIT) -> WatchFeed:
        """Read the event exchange by keys that come and go; at most `limit` messages wait for the reader."""
        ...

    async def tell(self, body: bytes, routing_key: str, cc: Sequence[str] = ()) -> None:
        """Publish to whoever listens on the event exchange, or to nobody: it is neither stored nor confirmed.

        `cc` are further routing keys; a queue gets one copy. See `watch.in_messages` for how many fit.
        """
        ...

    async def dead_letters(self) -> Feed[DeadLetter]:
        """Read the queue of dead letters, shared by every reader and kept while none reads. Raises QueueRefused where
        the broker lets us make none."""
        ...

    async def revoke(self, ids: Sequence[str], *, terminate: bool) -> None:
        """Let no worker begin these jobs, and end those that run where the pool can.

        Returns when the broker keeps it, so that workers that start later read it before they take a message; those
        that run now are told beside it. A broker without streams for us keeps nothing: only those that run are told.
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
