"""A key-value store with expiry in one SQLite file: what Celery's result backend needs, and no more.

Durability is the broker's: synchronous=NORMAL, so the crash of a process loses nothing that was set.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dure.broker.database import Database

_KEYS_AT_ONCE = 500  # SQLite limits the variables of a statement
_TABLE = """
CREATE TABLE IF NOT EXISTS results (
    key BLOB PRIMARY KEY,
    value BLOB NOT NULL,
    expires_at REAL
) WITHOUT ROWID
"""
_SET = (
    "INSERT INTO results VALUES (?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at"
)
_LIVING = " (expires_at IS NULL OR expires_at > ?)"


class Results:
    """Values are bytes; `expires` is seconds from now, or None for never."""

    def __init__(self, path: str | Path, *, busy_timeout: float = 30.0, now: Callable[[], float] = time.time) -> None:
        self._database = Database(Path(path), _create_table, busy_timeout=busy_timeout)
        self._now = now

    def get(self, key: bytes) -> bytes | None:
        rows = self._database.read(f"SELECT value FROM results WHERE key = ? AND{_LIVING}", (key, self._now()))  # noqa: S608
        return bytes(rows[0][0]) if rows else None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of the keys."""
        found = dict(row for chunk in _chunks(keys) for row in self._rows(chunk))
        return [found.get(key) for key in keys]

    def set(self, key: bytes, value: bytes, *, expires: float | None = None) -> None:
        with self._database.write() as db:
            db.execute(_SET, (key, value, self._deadline(expires)))

    def set_unless(
        self, key: bytes, value: bytes, kept: Callable[[bytes], bool], *, expires: float | None = None
    ) -> bool:
        """Set, unless `kept` says that the value there must stay; nobody can come in between."""
        with self._database.write() as db:
            row = db.execute(f"SELECT value FROM results WHERE key = ? AND{_LIVING}", (key, self._now())).fetchone()  # noqa: S608
            if row is not None and kept(bytes(row[0])):
                return False
            db.execute(_SET, (key, value, self._deadline(expires)))
            return True

    def set_each_unless(
        self, entries: Sequence[tuple[bytes, bytes]], kept: Callable[[bytes], bool], *, expires: float | None = None
    ) -> None:
        """Set many keys as `set_unless` sets one, all in one transaction."""
        now, deadline = self._now(), self._deadline(expires)
        with self._database.write() as db:
            for key, value in entries:
                row = db.execute(f"SELECT value FROM results WHERE key = ? AND{_LIVING}", (key, now)).fetchone()  # noqa: S608
                if row is None or not kept(bytes(row[0])):
                    db.execute(_SET, (key, value, deadline))

    def increment(self, key: bytes) -> int:
        """Add one to a counter, from nought when there is none, and answer it."""
        with self._database.write() as db:
            row = db.execute(f"SELECT value FROM results WHERE key = ? AND{_LIVING}", (key, self._now())).fetchone()  # noqa: S608
            count = (int(row[0]) if row else 0) + 1
            if row:
                db.execute("UPDATE results SET value = ? WHERE key = ?", (b"%d" % count, key))
            else:
                db.execute(_SET, (key, b"%d" % count, None))
            return count

    def expire(self, key: bytes, expires: float | None) -> None:
        with self._database.write() as db:
            db.execute("UPDATE results SET expires_at = ? WHERE key = ?", (self._deadline(expires), key))

    def delete(self, key: bytes) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM results WHERE key = ?", (key,))

    def drop_expired(self) -> int:
        with self._database.write() as db:
            return db.execute("DELETE FROM results WHERE expires_at <= ?", (self._now(),)).rowcount

    def close(self) -> None:
        self._database.close()

    def _deadline(self, expires: float | None) -> float | None:
        return None if not expires else self._now() + expires

    def _rows(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        marks = ",".join("?" * len(keys))
        return self._database.read(
            f"SELECT key, value FROM results WHERE key IN ({marks}) AND{_LIVING}",  # noqa: S608
            (*keys, self._now()),
        )


def _create_table(connection: sqlite3.Connection) -> None:
    connection.execute(_TABLE)
    connection.execute("CREATE INDEX IF NOT EXISTS results_expiring ON results (expires_at)")


def _chunks(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        yield keys[start : start + _KEYS_AT_ONCE]
