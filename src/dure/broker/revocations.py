"""The log of cancelled jobs: one row for each job, under the position at which readers last have to take note of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from dure.revocation import Revocation

AFTER = "SELECT position, job, terminate, at FROM revocations WHERE position > ? ORDER BY position"
FORGETTABLE = "SELECT 1 FROM revocations WHERE at <= ? LIMIT 1"


def append(db: sqlite3.Connection, ids: Iterable[str], *, terminate: bool, at: float) -> None:
    """A job that is in the log already moves to its end; that it is to be terminated is never taken back."""
    db.executemany(
        "INSERT OR REPLACE INTO revocations (job, terminate, at)"
        " VALUES (?1, max(?2, ifnull((SELECT terminate FROM revocations WHERE job = ?1), 0)), ?3)",
        [(job, terminate, at) for job in dict.fromkeys(ids)],
    )


def forget(db: sqlite3.Connection, before: float) -> None:
    db.execute("DELETE FROM revocations WHERE at <= ?", (before,))


def entry(row: tuple[int, str, int, float]) -> tuple[int, Revocation]:
    position, job, terminate, at = row
    return position, Revocation(ids=(job,), terminate=bool(terminate), at=at)
