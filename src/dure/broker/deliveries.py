"""The statements that move messages; each runs inside a write transaction of the caller.

Every function that makes messages ready says in which queues, so that their consumers are woken after the commit.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence

from dure.broker.message import Delivery, Message, decode_properties
from dure.broker.routing import Route

# What a prepared message is in the file: priority, time to live, exchange, routing key, properties, body.
Row = tuple[int, float | None, str, str, str, bytes | str]

_INSERT = (
    "INSERT INTO messages (queue, priority, expires_at, exchange, routing_key, properties, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_NEXT = " WHERE id IN (SELECT id FROM messages WHERE queue = ? AND session IS NULL ORDER BY priority DESC, id LIMIT ?)"
_CLAIMED = " RETURNING id, priority, deliveries, expires_at, exchange, routing_key, properties, body"
_CLAIM = "UPDATE messages SET session = ?, deliveries = deliveries + 1" + _NEXT + _CLAIMED  # noqa: S608
_DROP = "DELETE FROM messages" + _NEXT  # noqa: S608
_TAKE = _DROP + _CLAIMED
_COUNT = "UPDATE queues SET ready = ready + ? WHERE id = ?"


def insert(db: sqlite3.Connection, routed: Iterable[tuple[Row, Sequence[Route]]], now: float) -> set[Route]:
    rows: list[tuple[object, ...]] = []
    reached: Counter[Route] = Counter()
    for (priority, time_to_live, *rest), routes in routed:
        for route in routes:
            lives = _shortest(time_to_live, route.message_ttl)
            rows.append((route.queue, priority, None if lives is None else now + lives, *rest))
            reached[route] += 1
    db.executemany(_INSERT, rows)
    for route, count in reached.items():
        db.execute(_COUNT, (count, route.queue))
        if route.max_length is not None:
            _drop_head(db, route.queue, route.max_length)
    return set(reached)


def _shortest(*lives: float | None) -> float | None:
    return min((life for life in lives if life is not None), default=None)


def _drop_head(db: sqlite3.Connection, queue: int, max_length: int) -> None:
    (ready,) = db.execute("SELECT ready FROM queues WHERE id = ?", (queue,)).fetchone()
    over = ready - max_length
    if over > 0:
        db.execute(_DROP, (queue, over))
        db.execute("UPDATE queues SET ready = ready - ?, dropped = dropped + ? WHERE id = ?", (over, over, queue))


def claim(
    db: sqlite3.Connection, route: Route, session: int, limit: int, now: float, *, no_ack: bool
) -> list[Delivery]:
    """Up to `limit` messages in the order of the queue; those that have expired are dropped on the way."""
    if no_ack:
        rows = db.execute(_TAKE, (route.queue, limit)).fetchall()
    else:
        rows = db.execute(_CLAIM, (session, route.queue, limit)).fetchall()
    if not rows:
        return []
    db.execute(_COUNT, (-len(rows), route.queue))
    rows.sort(key=lambda row: (-row[1], row[0]))  # RETURNING promises no order
    expired = [row[0] for row in rows if row[3] is not None and row[3] <= now]
    if expired:
        db.executemany("DELETE FROM messages WHERE id = ?", [(tag,) for tag in expired])
        gone = set(expired)
        rows = [row for row in rows if row[0] not in gone]
    return [
        Delivery(
            tag,
            route.name,
            deliveries + no_ack,
            Message(exchange, routing_key, body, decode_properties(properties)),
        )
        for tag, _, deliveries, _, exchange, routing_key, properties, body in rows
    ]


def acknowledge(db: sqlite3.Connection, session: int, tags: Iterable[int]) -> None:
    db.executemany("DELETE FROM messages WHERE id = ? AND session = ?", [(tag, session) for tag in tags])


def give_back(db: sqlite3.Connection, session: int, tags: Iterable[int]) -> set[int]:
    return _made_ready(
        db,
        [
            queue
            for tag in tags
            for (queue,) in db.execute(
                "UPDATE messages SET session = NULL WHERE id = ? AND session = ? RETURNING queue", (tag, session)
            ).fetchall()
        ],
    )


def give_back_all(db: sqlite3.Connection, session: int) -> set[int]:
    queues = db.execute("UPDATE messages SET session = NULL WHERE session = ? RETURNING queue", (session,)).fetchall()
    return _made_ready(db, [queue for (queue,) in queues])


def _made_ready(db: sqlite3.Connection, queues: Iterable[int]) -> set[int]:
    counts = Counter(queues)
    db.executemany(_COUNT, [(count, queue) for queue, count in counts.items()])
    return set(counts)


def purge(db: sqlite3.Connection, queue: int) -> int:
    gone = db.execute("DELETE FROM messages WHERE queue = ? AND session IS NULL", (queue,)).rowcount
    db.execute("UPDATE queues SET ready = 0 WHERE id = ?", (queue,))
    return gone


def drop_expired(db: sqlite3.Connection, now: float) -> None:
    gone = db.execute(
        "DELETE FROM messages WHERE expires_at <= ? AND session IS NULL RETURNING queue", (now,)
    ).fetchall()
    db.executemany(_COUNT, [(-count, queue) for queue, count in Counter(queue for (queue,) in gone).items()])
