"""One SQLite connection for many threads, with waiting for other processes and a fresh start after a fork."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dure.broker.errors import BrokerUnavailable

_T = TypeVar("_T")
# SQLite's own waiting sleeps up to 100 ms at a time; our transactions last well under one.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.01
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

# A connection that crossed a fork must be neither used nor closed by the child, so the child keeps it for good.
_inherited: list[sqlite3.Connection] = []
_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    def __init__(self, path: Path, schema: Callable[[sqlite3.Connection], None], *, busy_timeout: float) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._schema = schema
        self._busy_timeout = busy_timeout
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        _databases.add(self)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is committed, or none of it and an error is raised."""
        with self.lock, self._named_errors():
            connection = self._open()
            self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                yield connection
                self._patiently(lambda: connection.execute("COMMIT"))
            except BaseException:
                # A full disk makes SQLite roll back by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def read(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        with self.lock, self._named_errors():
            connection = self._open()
            return self._patiently(lambda: connection.execute(sql, parameters).fetchall())

    def close(self) -> None:
        with self.lock:
            self._closed = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def leave_to_parent(self) -> None:
        if self._connection is not None:
            _inherited.append(self._connection)
            self._connection = None
        self.lock = threading.RLock()

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise BrokerUnavailable(str(self.path), "it was closed by this process")
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"))
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 2000")
        connection.execute("PRAGMA temp_store = MEMORY")
        self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
        try:
            self._schema(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _patiently(self, step: Callable[[], _T]) -> _T:
        pause, deadline = _FIRST_PAUSE, 0.0
        while True:
            try:
                return step()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY:
                    raise
                now = time.monotonic()
                deadline = deadline or now + self._busy_timeout
                if now >= deadline:
                    raise
                # Unequal pauses, so that waiting processes do not knock in step.
                time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
                pause = min(pause * 2, _LONGEST_PAUSE)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
                raise BrokerUnavailable(str(self.path), str(error)) from error
            raise
        except OSError as error:
            raise BrokerUnavailable(str(self.path), str(error)) from error


_held_for_fork: list[threading.RLock] = []


def _before_fork() -> None:
    # No statement may be under way: the child would inherit SQLite's own mutexes locked.
    for database in list(_databases):
        database.lock.acquire()
        _held_for_fork.append(database.lock)


def _after_fork_in_parent() -> None:
    while _held_for_fork:
        _held_for_fork.pop().release()


def _after_fork_in_child() -> None:
    _held_for_fork.clear()
    for database in list(_databases):
        database.leave_to_parent()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
