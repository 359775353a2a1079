"""The broker's file: its tables, and why each index is there.

A message is one row per queue it reached. `session` is empty while it is ready and names its holder while it is
unacknowledged; acknowledging deletes the row. A returned message keeps its id, so it is back in its old place.

`messages_ready` makes a claim cost the same at any backlog; `messages_held` finds a dead session's messages;
`messages_by_job` finds those of Dure's own jobs.
`queues.ready` counts the ready rows, in the transaction that changes them, so that reading a depth counts nothing.
`topology.version` moves with every change to queues, bindings or consumers; processes cache routes under it.
`revocations` is a log: a job that is revoked again leaves its row for one at a new position, which is never used twice.

The tables are made in steps, and `user_version` counts them. A file of an earlier version takes the steps it lacks; a
new one takes them all.
"""

from __future__ import annotations

import sqlite3

from dure.broker.message import decode_properties, job_of

_FIRST = """
CREATE TABLE topology (version INTEGER NOT NULL);
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    lock TEXT NOT NULL,
    port INTEGER NOT NULL
);
CREATE TABLE exchanges (
    name TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    durable INTEGER NOT NULL,
    auto_delete INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE queues (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    durable INTEGER NOT NULL,
    owner INTEGER,
    auto_delete INTEGER NOT NULL,
    max_length INTEGER,
    message_ttl REAL,
    expires REAL,
    used_at REAL NOT NULL,
    ready INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE bindings (
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    queue INTEGER NOT NULL,
    PRIMARY KEY (exchange, routing_key, queue)
) WITHOUT ROWID;
CREATE TABLE consumers (
    session INTEGER NOT NULL,
    tag TEXT NOT NULL,
    queue INTEGER NOT NULL,
    PRIMARY KEY (session, tag)
) WITHOUT ROWID;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    session INTEGER,
    deliveries INTEGER NOT NULL DEFAULT 0,
    expires_at REAL,
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    properties TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX messages_ready ON messages (queue, priority DESC, id) WHERE session IS NULL;
CREATE INDEX messages_held ON messages (session) WHERE session IS NOT NULL;
CREATE INDEX messages_expiring ON messages (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX consumers_by_queue ON consumers (queue);
INSERT INTO topology VALUES (1);
INSERT INTO exchanges VALUES
    ('amq.direct', 'direct', 1, 0), ('amq.topic', 'topic', 1, 0), ('amq.fanout', 'fanout', 1, 0);
"""


IN_ORDER = "substr(job, 15, 1) = '7'"  # what `messages_by_job` holds: UUIDs of version 7, as Dure gives them
_DEAD_LETTERS_AND_JOBS = """
ALTER TABLE queues ADD COLUMN dead_letter_exchange TEXT;
ALTER TABLE queues ADD COLUMN dead_letter_routing_key TEXT;
ALTER TABLE queues ADD COLUMN delivery_limit INTEGER;
ALTER TABLE messages ADD COLUMN job TEXT;
UPDATE messages SET job = job_of(properties);
CREATE INDEX messages_by_job ON messages (job, queue) WHERE substr(job, 15, 1) = '7';
CREATE TABLE revocations (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL UNIQUE,
    terminate INTEGER NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX revocations_by_age ON revocations (at);
UPDATE topology SET version = version + 1;
"""
_STEPS = (_FIRST, _DEAD_LETTERS_AND_JOBS)


def create_tables(connection: sqlite3.Connection) -> None:
    """Bring the file to this version; the caller holds the write transaction."""
    (done,) = connection.execute("PRAGMA user_version").fetchone()
    if done >= len(_STEPS):
        return
    connection.create_function("job_of", 1, lambda properties: job_of(decode_properties(properties)))
    for step in _STEPS[done:]:
        for statement in step.split(";"):
            if statement.strip():
                connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(_STEPS)}")
