"""The statements that move messages; each runs inside a write transaction of the caller."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from dure.broker import dead
from dure.broker.database import Database
from dure.broker.message import Delivery, Message, decode_properties, encode_properties, job_of
from dure.broker.routing import Route, Topology
from dure.broker.schema import IN_ORDER

# What a prepared message is in the file: priority, time to live, exchange, routing key, properties, body, job.
Row = tuple[int, float | None, str, str, str, bytes | str, str | None]
# What comes back out of it: id, queue, priority, deliveries, expiry, exchange, routing key, properties, body.
_Taken = tuple[int, int, int, int, float | None, str, str, str, bytes | str]

_INSERT = (
    "INSERT INTO messages (queue, priority, expires_at, exchange, routing_key, properties, body, job)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_NEXT = " WHERE id IN (SELECT id FROM messages WHERE queue = ? AND session IS NULL ORDER BY priority DESC, id LIMIT ?)"
_TAKEN = " RETURNING id, queue, priority, deliveries, expires_at, exchange, routing_key, properties, body"
_CLAIM = "UPDATE messages SET session = ?, deliveries = deliveries + 1" + _NEXT + _TAKEN  # noqa: S608
_DROP = "DELETE FROM messages" + _NEXT  # noqa: S608
_REMOVE = "DELETE FROM messages WHERE id = ?"
_REMOVE_HELD = _REMOVE + " AND session = ?"
_GIVE_BACK = "UPDATE messages SET session = NULL WHERE session = ?"
_GIVE_BACK_UNSEEN = "UPDATE messages SET session = NULL, deliveries = deliveries - 1 WHERE session = ?"
_GIVEN_BACK = " RETURNING id, queue, deliveries"
_EXPIRE = (
    "DELETE FROM messages WHERE id IN"
    " (SELECT id FROM messages WHERE expires_at <= ? AND session IS NULL ORDER BY expires_at LIMIT ?)"
)
EXPIRED = "SELECT 1 FROM messages WHERE expires_at <= ? AND session IS NULL LIMIT 1"
_HOLDING = "SELECT job FROM messages WHERE queue = ? AND {} AND job IN ({})"
_JOBS_AT_ONCE = 10_000  # SQLite limits the variables of a statement
_COUNT = "UPDATE queues SET ready = ready + ? WHERE id = ?"
# Neither a claim nor housekeeping keeps the file from others for as long as a great heap of expired messages takes.
_PASSES = 20
_EXPIRE_AT_ONCE = 1000


def row(message: Message) -> Row:
    return (
        message.priority,
        message.time_to_live,
        message.exchange,
        message.routing_key,
        encode_properties(message.given_properties),
        message.body,
        job_of(message.properties),
    )


class Moves:
    """What one transaction moves; `reached` are the queues with messages anew, whose consumers it is to wake."""

    def __init__(self, db: sqlite3.Connection, topology: Topology, now: float) -> None:
        self.db = db
        self.topology = topology
        self.now = now
        self.reached: set[Route] = set()

    def put(self, routed: Sequence[tuple[Row, Sequence[Route]]]) -> None:
        """Put messages into queues; what that pushes out of one may be put into the next."""
        while routed:
            reached = self._insert(routed)
            self.reached |= reached.keys()
            pushed: list[_Taken] = []
            for route, count in reached.items():
                self.db.execute(_COUNT, (count, route.queue))
                if route.max_length is not None:
                    pushed += self._drop_head(route, route.max_length)
            routed = self._letters(pushed, dead.Reason.MAXLEN)

    def claim(self, route: Route, session: int, limit: int, *, no_ack: bool) -> list[Delivery]:
        """Up to `limit` messages in the order of the queue; those that have expired go on the way."""
        claimed: list[Delivery] = []
        for _ in range(_PASSES):
            rows = self._take(route, session, limit - len(claimed), no_ack=no_ack)
            living = [taken for taken in rows if taken[4] is None or taken[4] > self.now]
            claimed += [_delivery(taken, route, no_ack) for taken in living]
            if len(living) == len(rows):
                break
            expired = [taken for taken in rows if taken[4] is not None and taken[4] <= self.now]
            self.db.executemany(_REMOVE, [(taken[0],) for taken in expired])
            self.put(self._letters(expired, dead.Reason.EXPIRED))
        return claimed

    def reject(self, session: int, tags: Iterable[int]) -> None:
        rejected: list[_Taken] = []
        for tag in tags:
            rejected += self.db.execute(_REMOVE_HELD + _TAKEN, (tag, session)).fetchall()
        self.put(self._letters(rejected, dead.Reason.REJECTED))

    def give_back(self, session: int, tags: Iterable[int]) -> None:
        """To their old places in their queues, but for what was delivered more often than its queue allows."""
        self._give_back(_GIVE_BACK, session, tags)

    def give_back_unseen(self, session: int, tags: Iterable[int]) -> None:
        """As if they had not been claimed."""
        self._give_back(_GIVE_BACK_UNSEEN, session, tags)

    def give_back_all(self, session: int) -> None:
        self._make_ready(self.db.execute(_GIVE_BACK + _GIVEN_BACK, (session,)).fetchall())

    def drop_expired(self) -> bool:
        """Some of the ready messages that have expired; answers whether there may be more."""
        expired = self.db.execute(_EXPIRE + _TAKEN, (self.now, _EXPIRE_AT_ONCE)).fetchall()
        for queue, count in Counter(taken[1] for taken in expired).items():
            self.db.execute(_COUNT, (-count, queue))
        self.put(self._letters(expired, dead.Reason.EXPIRED))
        return len(expired) == _EXPIRE_AT_ONCE

    def _give_back(self, statement: str, session: int, tags: Iterable[int]) -> None:
        given: list[tuple[int, int, int]] = []
        for tag in tags:
            given += self.db.execute(statement + " AND id = ?" + _GIVEN_BACK, (session, tag)).fetchall()
        self._make_ready(given)

    def _insert(self, routed: Iterable[tuple[Row, Sequence[Route]]]) -> Counter[Route]:
        rows: list[tuple[object, ...]] = []
        reached: Counter[Route] = Counter()
        for (priority, time_to_live, *rest), routes in routed:
            for route in routes:
                lives = _shortest(time_to_live, route.message_ttl)
                rows.append((route.queue, priority, None if lives is None else self.now + lives, *rest))
                reached[route] += 1
        self.db.executemany(_INSERT, rows)
        return reached

    def _drop_head(self, route: Route, max_length: int) -> list[_Taken]:
        (ready,) = self.db.execute("SELECT ready FROM queues WHERE id = ?", (route.queue,)).fetchone()
        over = ready - max_length
        if over <= 0:
            return []
        self.db.execute(
            "UPDATE queues SET ready = ready - ?, dropped = dropped + ? WHERE id = ?", (over, over, route.queue)
        )
        if route.dead_letters is None:
            self.db.execute(_DROP, (route.queue, over))
            return []
        return self.db.execute(_DROP + _TAKEN, (route.queue, over)).fetchall()

    def _take(self, route: Route, session: int, limit: int, *, no_ack: bool) -> list[_Taken]:
        if no_ack:
            rows = self.db.execute(_DROP + _TAKEN, (route.queue, limit)).fetchall()
        else:
            rows = self.db.execute(_CLAIM, (session, route.queue, limit)).fetchall()
        if rows:
            self.db.execute(_COUNT, (-len(rows), route.queue))
        rows.sort(key=_place)
        return rows

    def _make_ready(self, given: Sequence[tuple[int, int, int]]) -> None:
        ready: Counter[int] = Counter()
        exhausted: list[_Taken] = []
        for tag, queue, deliveries in given:
            limit = self.topology.by_id[queue].delivery_limit
            if limit is None or deliveries <= limit:
                ready[queue] += 1
            else:
                exhausted += self.db.execute(_REMOVE + _TAKEN, (tag,)).fetchall()
        self.db.executemany(_COUNT, [(count, queue) for queue, count in ready.items()])
        self.reached |= {self.topology.by_id[queue] for queue in ready}
        self.put(self._letters(exhausted, dead.Reason.DELIVERY_LIMIT))

    def _letters(self, given_up: list[_Taken], reason: dead.Reason) -> list[tuple[Row, Sequence[Route]]]:
        """What is to be put where, of messages that are out of their queues already."""
        letters: list[tuple[Row, Sequence[Route]]] = []
        for _, queue, _, _, _, exchange, routing_key, properties, body in sorted(given_up, key=_place):
            route = self.topology.by_id[queue]
            if route.dead_letters is None:
                continue
            message = Message(exchange, routing_key, body, decode_properties(properties))
            letter = dead.letter(message, route.dead_letters, route.name, reason, self.now)
            open_to_it = [each for each in self.topology.reach(letter) if not dead.goes_round(letter, each.name)]
            if open_to_it:
                letters.append((row(letter), open_to_it))
        return letters


def acknowledge(db: sqlite3.Connection, session: int, tags: Iterable[int]) -> None:
    db.executemany(_REMOVE_HELD, [(tag, session) for tag in tags])


def purge(db: sqlite3.Connection, queue: int) -> int:
    gone = db.execute("DELETE FROM messages WHERE queue = ? AND session IS NULL", (queue,)).rowcount
    db.execute("UPDATE queues SET ready = 0 WHERE id = ?", (queue,))
    return gone


def holding(db: Database, queue: int, jobs: Collection[str]) -> set[str]:
    """Which of these jobs have a message in the queue.

    UUIDs of version 7 are in the index, for they come nearly in order, so that it grows at its end. Random ones would
    touch a page each and double the cost of every message; looking for those reads the whole table instead.
    """
    in_order = [job for job in jobs if job[14:15] == "7"]
    others = [job for job in jobs if job[14:15] != "7"]
    return _found(db, queue, in_order, IN_ORDER) | _found(db, queue, others, "TRUE")


def _found(db: Database, queue: int, jobs: Sequence[str], condition: str) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(jobs), _JOBS_AT_ONCE):
        some = jobs[start : start + _JOBS_AT_ONCE]
        found |= {job for (job,) in db.read(_HOLDING.format(condition, ",".join("?" * len(some))), (queue, *some))}
    return found


def _place(taken: _Taken) -> tuple[int, int]:
    """The order of a queue; RETURNING promises none."""
    return -taken[2], taken[0]


def _delivery(taken: _Taken, route: Route, no_ack: bool) -> Delivery:
    tag, _, _, deliveries, _, exchange, routing_key, properties, body = taken
    return Delivery(
        tag, route.name, deliveries + no_ack, Message(exchange, routing_key, body, decode_properties(properties))
    )


def _shortest(*lives: float | None) -> float | None:
    return min((life for life in lives if life is not None), default=None)
