"""Which queues a message goes to: AMQP's direct, topic and fanout exchanges over a cached topology."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import dataclass

from dure.broker.dead import Address
from dure.broker.message import Message

EXCHANGE_TYPES = ("direct", "topic", "fanout")
_ROUTES_KEPT = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One queue a message reaches, with what its messages must obey; `ports` wake the queue's consumers."""

    queue: int
    name: str
    max_length: int | None
    message_ttl: float | None
    delivery_limit: int | None
    dead_letters: Address | None
    ports: tuple[int, ...]


class Topology:
    """Exchanges, queues and bindings as they were at one version of the file."""

    def __init__(self, db: sqlite3.Connection, version: int) -> None:
        self.version = version
        ports: dict[int, list[int]] = defaultdict(list)
        for queue, port in db.execute(
            "SELECT DISTINCT c.queue, s.port FROM consumers c JOIN sessions s ON s.id = c.session"
        ):
            ports[queue].append(port)
        rows = db.execute(
            "SELECT id, name, max_length, message_ttl, delivery_limit, dead_letter_exchange, dead_letter_routing_key"
            " FROM queues"
        )
        self.by_id = {
            queue: Route(
                queue=queue,
                name=name,
                max_length=max_length,
                message_ttl=message_ttl,
                delivery_limit=limit,
                dead_letters=None if exchange is None else Address(exchange, key),
                ports=tuple(ports[queue]),
            )
            for queue, name, max_length, message_ttl, limit, exchange, key in rows
        }
        self.by_name = {route.name: route for route in self.by_id.values()}
        self._types: dict[str, str] = dict(db.execute("SELECT name, type FROM exchanges").fetchall())
        self._bindings: dict[str, _Bindings] = defaultdict(_Bindings)
        for exchange, routing_key, queue in db.execute("SELECT exchange, routing_key, queue FROM bindings"):
            self._bindings[exchange].add(routing_key, queue)
        self._routes: dict[tuple[str, str], tuple[Route, ...]] = {}

    def reach(self, message: Message) -> tuple[Route, ...]:
        """Every queue that one of its keys leads to, once."""
        keys = message.routing_keys
        if len(keys) == 1:
            return self.route(message.exchange, message.routing_key)
        return tuple(dict.fromkeys(route for key in keys for route in self.route(message.exchange, key)))

    def route(self, exchange: str, routing_key: str) -> tuple[Route, ...]:
        key = (exchange, routing_key)
        found = self._routes.get(key)
        if found is None:
            # Reply keys are many and used once; the routes that matter are soon back.
            if len(self._routes) >= _ROUTES_KEPT:
                self._routes.clear()
            found = self._routes[key] = self._find(exchange, routing_key)
        return found

    def _find(self, exchange: str, routing_key: str) -> tuple[Route, ...]:
        if not exchange:
            queue = self.by_name.get(routing_key)
            return (queue,) if queue else ()
        bindings = self._bindings.get(exchange)
        if bindings is None:
            return ()
        matched = bindings.matching(self._types.get(exchange), routing_key)
        return tuple(self.by_id[queue] for queue in matched if queue in self.by_id)


class _Bindings:
    """Those of one exchange. Most name one key: what a job that nobody watches costs does not grow with the watched."""

    def __init__(self) -> None:
        self._by_key: dict[str, list[int]] = defaultdict(list)
        self._patterns: list[tuple[str, str, int]] = []  # the words before the first wildcard, and the whole

    def add(self, key: str, queue: int) -> None:
        self._by_key[key].append(queue)
        words = key.split(".")
        wild = next((n for n, word in enumerate(words) if word in ("*", "#")), None)
        if wild is not None:
            self._patterns.append((".".join(words[:wild]), key, queue))

    def matching(self, kind: str | None, routing_key: str) -> list[int]:
        if kind == "fanout":
            found = [queue for queues in self._by_key.values() for queue in queues]
        else:
            found = [*self._by_key.get(routing_key, ())]
        if kind == "topic":
            found += [
                queue
                for beginning, pattern, queue in self._patterns
                if routing_key.startswith(beginning) and topic_matches(pattern, routing_key)
            ]
        return list(dict.fromkeys(found))


def topic_matches(binding: str, routing_key: str) -> bool:
    """`*` is exactly one word and `#` is any number of them, also none; words are separated by dots."""
    words = routing_key.split(".") if routing_key else []
    # The prefixes of the key, by their number of words, that the binding so far can match.
    reached = {0}
    for part in binding.split(".") if binding else []:
        if part == "#":
            reached = set(range(min(reached), len(words) + 1)) if reached else set()
        else:
            reached = {n + 1 for n in reached if n < len(words) and part in ("*", words[n])}
    return len(words) in reached
