"""The statements that make and unmake exchanges, queues, bindings, consumers and sessions.

Each runs inside a write transaction of the caller. Whatever changes a route or a listener moves the topology's
version, so that every process reads it anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from dure.broker.deliveries import Moves
from dure.broker.errors import ExchangeMismatch, QueueNotFound
from dure.broker.message import QueueDepth

_DEPTH = "SELECT name, ready, (SELECT count(*) FROM consumers c WHERE c.queue = q.id), dropped FROM queues q"
ALL_DEPTHS = _DEPTH + " ORDER BY name"
ONE_DEPTH = _DEPTH + " WHERE name = ?"
# An expiring queue is one that nobody has consumed from or declared for its time.
UNUSED_QUEUES = (
    "SELECT id FROM queues q WHERE expires IS NOT NULL AND used_at + expires <= ?"
    " AND NOT EXISTS (SELECT 1 FROM consumers c WHERE c.queue = q.id)"
)


def changed(db: sqlite3.Connection) -> None:
    db.execute("UPDATE topology SET version = version + 1")


def queue_id(db: sqlite3.Connection, name: str) -> int:
    row = db.execute("SELECT id FROM queues WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise QueueNotFound(name)
    return int(row[0])


def declare_exchange(db: sqlite3.Connection, name: str, kind: str, *, durable: bool, auto_delete: bool) -> None:
    existing = db.execute("SELECT type FROM exchanges WHERE name = ?", (name,)).fetchone()
    if existing is None:
        db.execute("INSERT INTO exchanges VALUES (?, ?, ?, ?)", (name, kind, durable, auto_delete))
        changed(db)
    elif existing[0] != kind:
        raise ExchangeMismatch(name, existing[0], kind)


def delete_exchange(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM bindings WHERE exchange = ?", (name,))
    db.execute("DELETE FROM exchanges WHERE name = ?", (name,))
    changed(db)


def declare_queue(
    db: sqlite3.Connection,
    name: str,
    *,
    durable: bool,
    owner: int | None,
    auto_delete: bool,
    arguments: Mapping[str, Any],
    now: float,
) -> None:
    """Make the queue; one that exists keeps its arguments, and only its expiry starts anew.

    But one that has no dead-letter exchange or no delivery limit gets those it is declared with, for there are no
    policies here, and whoever declared it first may have known nothing of them.
    """
    exchange, routing_key = arguments.get("x-dead-letter-exchange"), arguments.get("x-dead-letter-routing-key")
    limit = _limit(arguments.get("x-delivery-limit"))
    known = db.execute("UPDATE queues SET used_at = ? WHERE name = ?", (now, name)).rowcount
    if known:
        _complete(db, name, exchange, routing_key, limit)
        return
    db.execute(
        "INSERT INTO queues (name, durable, owner, auto_delete, max_length, message_ttl, expires, used_at,"
        " dead_letter_exchange, dead_letter_routing_key, delivery_limit) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            name,
            durable,
            owner,
            auto_delete,
            arguments.get("x-max-length"),
            _seconds(arguments.get("x-message-ttl")),
            _seconds(arguments.get("x-expires")),
            now,
            exchange,
            routing_key,
            limit,
        ),
    )
    changed(db)


def _complete(
    db: sqlite3.Connection, name: str, exchange: str | None, routing_key: str | None, limit: int | None
) -> None:
    # A routing key is nothing without the exchange it was meant for.
    addressed = db.execute(
        "UPDATE queues SET dead_letter_exchange = ?, dead_letter_routing_key = ?"
        " WHERE name = ? AND dead_letter_exchange IS NULL AND ? IS NOT NULL",
        (exchange, routing_key, name, exchange),
    ).rowcount
    limited = db.execute(
        "UPDATE queues SET delivery_limit = ? WHERE name = ? AND delivery_limit IS NULL AND ? IS NOT NULL",
        (limit, name, limit),
    ).rowcount
    if addressed or limited:
        changed(db)


def _limit(deliveries: int | None) -> int | None:
    # RabbitMQ 4 takes -1 for none.
    return None if deliveries is None or deliveries < 0 else deliveries


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def delete_queue(db: sqlite3.Connection, queue: int) -> int:
    """Delete the queue and all it holds; answers how many ready messages went with it."""
    (ready,) = db.execute("SELECT ready FROM queues WHERE id = ?", (queue,)).fetchone()
    db.execute("DELETE FROM messages WHERE queue = ?", (queue,))
    db.execute("DELETE FROM consumers WHERE queue = ?", (queue,))
    unbound = db.execute("DELETE FROM bindings WHERE queue = ? RETURNING exchange", (queue,)).fetchall()
    db.execute("DELETE FROM queues WHERE id = ?", (queue,))
    _delete_deserted(db, unbound)
    changed(db)
    return int(ready)


def bind(db: sqlite3.Connection, queue: int, exchange: str, routing_keys: Iterable[str]) -> None:
    rows = [(exchange, key, queue) for key in routing_keys]
    if rows and db.executemany("INSERT OR IGNORE INTO bindings VALUES (?, ?, ?)", rows).rowcount > 0:
        changed(db)


def unbind(db: sqlite3.Connection, queue: int, exchange: str, routing_keys: Iterable[str]) -> None:
    rows = [(exchange, key, queue) for key in routing_keys]
    unbind_one = "DELETE FROM bindings WHERE exchange = ? AND routing_key = ? AND queue = ?"
    if rows and db.executemany(unbind_one, rows).rowcount > 0:
        _delete_deserted(db, [(exchange,)])
        changed(db)


def _delete_deserted(db: sqlite3.Connection, exchanges: list[tuple[str]]) -> None:
    """An auto-delete exchange goes with its last binding, not before it had one."""
    db.executemany(
        "DELETE FROM exchanges WHERE name = ? AND auto_delete AND name NOT IN (SELECT exchange FROM bindings)",
        exchanges,
    )


def add_consumer(db: sqlite3.Connection, session: int, tag: str, queue: int) -> None:
    db.execute("INSERT OR REPLACE INTO consumers VALUES (?, ?, ?)", (session, tag, queue))
    changed(db)


def remove_consumers(db: sqlite3.Connection, session: int, tag: str | None, now: float) -> None:
    """Remove one consumer of the session, or all; a queue that lived for its last consumer goes with it."""
    left = db.execute(
        "DELETE FROM consumers WHERE session = ? AND tag = ifnull(?, tag) RETURNING queue", (session, tag)
    ).fetchall()
    for (queue,) in set(left):
        db.execute("UPDATE queues SET used_at = ? WHERE id = ?", (now, queue))
        deserted = db.execute(
            "SELECT 1 FROM queues WHERE id = ? AND auto_delete"
            " AND NOT EXISTS (SELECT 1 FROM consumers WHERE queue = queues.id)",
            (queue,),
        ).fetchone()
        if deserted:
            delete_queue(db, queue)
    if left:
        changed(db)


def end_session(moves: Moves, session: int) -> None:
    """Give back what the session held and drop what was its own."""
    db = moves.db
    moves.give_back_all(session)
    remove_consumers(db, session, None, moves.now)
    for (queue,) in db.execute("SELECT id FROM queues WHERE owner = ?", (session,)).fetchall():
        delete_queue(db, queue)
    db.execute("DELETE FROM sessions WHERE id = ?", (session,))


def depth(row: tuple[str, int, int, int]) -> QueueDepth:
    return QueueDepth(*row)
