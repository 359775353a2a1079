"""The embedded broker as it should be, in a few dictionaries; and a store behind the same calls.

Each call takes the session that makes it. The model keeps every message under the id that the file gives it, so both
can be compared whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dure.broker import liveness
from dure.broker.errors import QueueNotFound
from dure.broker.store import Message, Store

FANOUT = "fanout"
FLEETING = "fleeting"  # an auto-delete queue
Death = tuple[str, str, int]  # reason, queue, count
Row = tuple[str, int, int, int, float | None, int | None, tuple[Death, ...]]


@dataclass(frozen=True)
class Limits:
    """What a queue is declared with; times are in seconds."""

    max_length: int | None = None
    message_ttl: int | None = None
    delivery_limit: int | None = None
    exchange: str | None = None
    routing_key: str | None = None

    def arguments(self) -> dict[str, Any]:
        found = {
            "x-max-length": self.max_length,
            "x-message-ttl": None if self.message_ttl is None else self.message_ttl * 1000,
            "x-delivery-limit": self.delivery_limit,
            "x-dead-letter-exchange": self.exchange,
            "x-dead-letter-routing-key": self.routing_key,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Sent:
    number: int
    routing_key: str
    priority: int = 0
    lives: int | None = None


@dataclass(frozen=True)
class Kept:
    """A message in a queue; `holder` is the session that has not settled it."""

    tag: int
    queue: str
    number: int
    routing_key: str
    priority: int
    expires_at: float | None
    deliveries: int = 0
    holder: int | None = None
    deaths: tuple[Death, ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        return -self.priority, self.tag

    def row(self) -> Row:
        return self.queue, self.number, self.priority, self.deliveries, self.expires_at, self.holder, self.deaths


Letters = list[tuple[Kept, float | None, list[str]]]  # a message to be, how long it lives, its queues


class Model:
    def __init__(self, fanout: Sequence[str]) -> None:
        """With a fanout exchange to these queues."""
        self.fanout = fanout
        self.now = 1_000_000.0
        self.queues: dict[str, Limits] = {}
        self.pushed_out: dict[str, int] = {}
        self.messages: dict[int, Kept] = {}
        self.tags = 0
        self.consumers: set[tuple[int, str]] = set()
        self.crashed: list[int] = []

    # What a session asks.

    def declare(self, session: int, queue: str, limits: Limits) -> None:
        had = self.queues.get(queue)
        if had is None:
            self.pushed_out[queue] = 0
            self.queues[queue] = limits
            return
        if had.exchange is None:
            had = replace(had, exchange=limits.exchange, routing_key=limits.routing_key)
        if had.delivery_limit is None:
            had = replace(had, delivery_limit=limits.delivery_limit)
        self.queues[queue] = had

    def publish(self, session: int, messages: Sequence[Sent]) -> list[int]:
        letters: Letters = []
        for sent in messages:
            queues = self._routed("", sent.routing_key)
            message = Kept(0, "", sent.number, sent.routing_key, sent.priority, None)
            letters.append((message, sent.lives, queues))
        self._put(letters)
        return [len(queues) for _, _, queues in letters]

    def claim(self, session: int, queue: str, limit: int, no_ack: bool) -> list[tuple[int, int, int]]:
        taken: list[tuple[int, int, int]] = []
        while len(taken) < limit and (head := self.ready(queue)[: limit - len(taken)]):
            expired = [message for message in head if self._expired(message)]
            for message in head:
                counted = replace(message, deliveries=message.deliveries + 1, holder=session)
                self.messages[message.tag] = counted
                if message not in expired:
                    taken.append((message.tag, message.number, counted.deliveries))
                    if no_ack:
                        del self.messages[message.tag]
            self._put(self._given_up(expired, "expired"))
        return taken

    def ack(self, session: int, tags: Sequence[int]) -> None:
        for message in self._held(session, tags):
            del self.messages[message.tag]

    def reject(self, session: int, tags: Sequence[int]) -> None:
        self._put(self._given_up(self._held(session, tags), "rejected"))

    def give_back(self, session: int, tags: Sequence[int]) -> None:
        exhausted = []
        for message in self._held(session, tags):
            limit = self.queues[message.queue].delivery_limit
            if limit is not None and message.deliveries - 1 >= limit:
                exhausted.append(message)
            else:
                self.messages[message.tag] = replace(message, holder=None)
        self._put(self._given_up(exhausted, "delivery_limit"))

    def purge(self, session: int, queue: str) -> int | None:
        gone = self.ready(queue)
        for message in gone:
            del self.messages[message.tag]
        return len(gone) if queue in self.queues else None

    def consume(self, session: int, queue: str) -> None:
        if queue in self.queues:
            self.consumers.add((session, queue))

    def cancel(self, session: int, queue: str) -> None:
        if (session, queue) not in self.consumers:
            return
        self.consumers.remove((session, queue))
        if queue == FLEETING and queue not in self._listened():
            del self.queues[queue]
            self.messages = {tag: kept for tag, kept in self.messages.items() if kept.queue != queue}

    def housekeep(self, session: int) -> None:
        """Of all that is dead and has expired; any session does it for all."""
        for dead in sorted(self.crashed):
            self.close(dead)
        self.crashed.clear()
        ready = [message for message in self.messages.values() if message.holder is None]
        self._put(self._given_up([message for message in ready if self._expired(message)], "expired"))

    def close(self, session: int) -> None:
        self.give_back(session, list(self.messages))
        for holder, queue in list(self.consumers):
            if holder == session:
                self.cancel(session, queue)

    # What a test asks, and does to it.

    def crash(self, session: int) -> None:
        self.crashed.append(session)

    def ready(self, queue: str) -> list[Kept]:
        found = [kept for kept in self.messages.values() if kept.queue == queue and kept.holder is None]
        return sorted(found, key=lambda kept: kept.place)

    def holds(self, queue: str) -> set[int]:
        return {kept.number for kept in self.messages.values() if kept.queue == queue}

    def rows(self) -> dict[int, Row]:
        return {tag: message.row() for tag, message in self.messages.items()}

    def depths(self) -> dict[str, tuple[int, int, int]]:
        """Ready messages, consumers, and how many a full queue pushed out."""
        listened = self._listened()
        return {name: (len(self.ready(name)), listened.count(name), self.pushed_out[name]) for name in self.queues}

    def _listened(self) -> list[str]:
        return [queue for _, queue in self.consumers]

    # Where messages go.

    def _held(self, session: int, tags: Iterable[int]) -> list[Kept]:
        found = [self.messages[tag] for tag in dict.fromkeys(tags) if tag in self.messages]
        return [message for message in found if message.holder == session]

    def _expired(self, message: Kept) -> bool:
        return message.expires_at is not None and message.expires_at <= self.now

    def _routed(self, exchange: str, routing_key: str) -> list[str]:
        if exchange == FANOUT:
            return [name for name in self.fanout if name in self.queues]
        return [routing_key] if not exchange and routing_key in self.queues else []

    def _put(self, letters: Letters) -> None:
        while letters:
            reached: dict[str, None] = {}
            for message, lives, queues in letters:
                for queue in queues:
                    self.tags += 1
                    ends = min((t for t in (lives, self.queues[queue].message_ttl) if t is not None), default=None)
                    expires_at = None if ends is None else self.now + ends
                    self.messages[self.tags] = replace(message, tag=self.tags, queue=queue, expires_at=expires_at)
                    reached[queue] = None
            pushed = []
            for queue in reached:
                most = self.queues[queue].max_length
                ready = self.ready(queue)
                over = ready[: len(ready) - most] if most is not None and len(ready) > most else []
                self.pushed_out[queue] += len(over)
                pushed += over
            letters = self._given_up(pushed, "maxlen")

    def _given_up(self, messages: Iterable[Kept], reason: str) -> Letters:
        letters: Letters = []
        for message in sorted(messages, key=lambda kept: kept.place):
            del self.messages[message.tag]
            limits = self.queues[message.queue]
            if limits.exchange is None:
                continue
            deaths = _after(message, reason)
            key = limits.routing_key or message.routing_key
            queues = [q for q in self._routed(limits.exchange, key) if not _goes_round(deaths, q)]
            dead = Kept(0, "", message.number, key, message.priority, None, deaths=deaths)
            letters.append((dead, None, queues))
        return letters


def _after(message: Kept, reason: str) -> tuple[Death, ...]:
    same = [death for death in message.deaths if death[:2] == (reason, message.queue)]
    count = same[0][2] + 1 if same else 1
    return (reason, message.queue, count), *(death for death in message.deaths if death not in same)


def _goes_round(deaths: tuple[Death, ...], queue: str) -> bool:
    died_there = [n for n, death in enumerate(deaths) if death[1] == queue]
    return bool(died_there) and all(reason != "rejected" for reason, _, _ in deaths[: died_there[0] + 1])


class Real:
    """A store of its own behind the same calls; `clock` is what it takes for the time."""

    def __init__(self, path: Path) -> None:
        self.clock = 0.0
        self.store = Store(path, now=lambda: self.clock)
        self.store.fileno()  # a session from the start
        assert self.store._session is not None
        self.session = self.store._session.id

    def ask(self, clock: float, name: str, *arguments: Any) -> Any:
        self.clock = clock
        self.store._cleaned_at = 0.0 if name == "housekeep" else float("inf")
        try:
            return getattr(self, name)(*arguments)
        except QueueNotFound:
            return None

    def declare(self, queue: str, limits: Limits) -> None:
        self.store.declare_queue(queue, auto_delete=queue == FLEETING, arguments=limits.arguments())

    def publish(self, messages: Sequence[Sent]) -> list[int]:
        return self.store.publish([_message(sent) for sent in messages])

    def claim(self, queue: str, limit: int, no_ack: bool) -> list[tuple[int, int, int]]:
        deliveries = self.store.claim([queue], limit, no_ack=no_ack)
        return [(d.tag, int(d.message.body), d.deliveries) for d in deliveries]

    def ack(self, tags: Sequence[int]) -> None:
        self.store.ack(tags)

    def reject(self, tags: Sequence[int]) -> None:
        self.store.reject(tags, requeue=False)

    def give_back(self, tags: Sequence[int]) -> None:
        self.store.reject(tags, requeue=True)

    def purge(self, queue: str) -> int:
        return self.store.purge(queue)

    def consume(self, queue: str) -> None:
        self.store.consume(queue, tag=queue)

    def cancel(self, queue: str) -> None:
        self.store.cancel(queue)

    def housekeep(self) -> None:
        self.store.claim([], 1)

    def close(self) -> None:
        self.store.close()

    def crash(self) -> None:
        """What the kernel does for a killed process: the lock is freed, and nobody tells the file."""
        assert self.store._session is not None
        lock = self.store._session.lock
        liveness._own.discard(lock._path)
        liveness.os.close(lock._fd)
        self.store._session.ear.close()
        self.store._database.close()


def rows(store: Store) -> dict[int, Row]:
    """What the file holds, as the model has it."""
    found = store._database.read(
        "SELECT m.id, q.name, m.body, m.priority, m.deliveries, m.expires_at, m.session, m.properties"
        " FROM messages m LEFT JOIN queues q ON q.id = m.queue"
    )
    return {
        tag: (queue, int(body), priority, deliveries, expires_at, session, _deaths(json.loads(properties)))
        for tag, queue, body, priority, deliveries, expires_at, session, properties in found
    }


def _message(sent: Sent) -> Message:
    # A job's id is in a header or is the correlation id.
    job = str(sent.number)
    properties: dict[str, Any] = {"headers": {"id": job}} if sent.number % 2 else {"correlation_id": job}
    if sent.lives is not None:
        properties["expiration"] = str(sent.lives * 1000)
    return Message("", sent.routing_key, job, {"priority": sent.priority, **properties})


def _deaths(properties: dict[str, Any]) -> tuple[Death, ...]:
    found = (properties.get("headers") or {}).get("x-death", [])
    return tuple((death["reason"], death["queue"], death["count"]) for death in found)
