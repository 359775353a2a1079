"""Databases for the conformance suite of ledgers, and what is written to them."""

import asyncio
import contextlib
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import psycopg
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.event import JobEvent
from dure.job import Job, State, Unique
from dure.ledger import Idempotency, Ledger, Request, trips
from tests.processes import children
from tests.services import PostgreSQL

NOW = 1_800_000_000.0
PATIENCE = 20.0
ONE_STATEMENT = {"mark_queued"}  # it is its own transaction


@dataclass(frozen=True)
class Database:
    """A database of the test's own."""

    kind: str
    url: str
    server: PostgreSQL | None

    def execute(self, *statements: str) -> None:
        if self.kind == "sqlite":
            with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite://"))) as connection:
                connection.executescript(";".join(statements))
        else:
            with psycopg.connect(self.url, autocommit=True) as connection:
                for statement in statements:
                    connection.execute(statement.encode())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if self.kind == "sqlite":
            with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite://"))) as connection:
                return connection.execute(query).fetchall()
        with psycopg.connect(self.url, autocommit=True) as session:
            return session.execute(query.encode()).fetchall()

    def due(self) -> dict[str, float | None]:
        """When each row is due, which the ledger tells of the earliest only."""
        return dict(self.rows("SELECT id, due_at FROM jobs"))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def opened(database: Database, **arguments: Any) -> AsyncIterator[Ledger]:
    ledger = Ledger(database.url, **arguments)
    try:
        async with asyncio.timeout(PATIENCE):
            await ledger.open()
        yield ledger
    finally:
        await ledger.close()


def job(number: int = 0, **fields: Any) -> Job:
    given = {"id": f"job-{number:04}-{uuid4().hex[:8]}", "task": "t.add", "args": [number], "kwargs": {}, "queue": "q"}
    return Job(**(given | {"created_at": NOW + number, "changed_at": NOW + number} | fields))


def told(job_id: str, state: State, at: float = NOW + 50, **fields: Any) -> JobEvent:
    return JobEvent(**({"job_id": job_id, "state": state, "at": at, "attempt": 1, "worker": "w@a"} | fields))


@contextlib.contextmanager
def counted(ledger: Ledger) -> Iterator[list[str]]:
    """The statements that it writes by meanwhile; on PostgreSQL with those that go past SQLAlchemy."""
    statements: list[str] = []
    engine = ledger._engines.write.sync_engine
    execute = psycopg.AsyncCursor.execute

    async def noted(self: Any, statement: str, *args: Any, **options: Any) -> Any:
        statements.append(statement)
        return await execute(self, statement, *args, **options)

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            statements.append(statement)

    if engine.dialect.name == "postgresql":
        with patch.object(psycopg.AsyncCursor, "execute", noted):
            yield statements
    else:
        event.listen(engine, "before_cursor_execute", note)
        yield statements
        event.remove(engine, "before_cursor_execute", note)


@contextlib.contextmanager
def before_commits(ledger: Ledger, method: str, do: Callable[[Connection], None]) -> Iterator[None]:
    """Meanwhile `do` is called before each commit of this method's; on PostgreSQL some commits pass SQLAlchemy by."""
    if method in ONE_STATEMENT:
        engine = ledger._engines.write.sync_engine
        moment = "commit" if engine.dialect.name == "sqlite" else "begin"  # a server commits it without a word
        event.listen(engine, moment, do)
        yield
        event.remove(engine, moment, do)
        return
    finish = trips.finish

    async def finished(connection: AsyncConnection) -> None:
        assert connection.sync_connection is not None
        do(connection.sync_connection)
        await finish(connection)

    with patch.object(trips, "finish", finished):
        yield


@contextlib.contextmanager
def before_trips(do: Callable[[], None], ledger: Ledger) -> Iterator[None]:
    """Meanwhile `do` is called before each statement, or where they travel together before each trip, and before each
    commit."""
    pipelined, finish = trips._pipelined, trips.finish

    async def sent(*args: Any, **options: Any) -> Any:
        do()
        return await pipelined(*args, **options)

    async def finished(connection: AsyncConnection) -> None:
        do()
        await finish(connection)

    def executed(*_: Any) -> None:
        do()

    engine = ledger._engines.write.sync_engine
    event.listen(engine, "before_cursor_execute", executed)
    try:
        with patch.object(trips, "_pipelined", sent), patch.object(trips, "finish", finished):
            yield
    finally:
        event.remove(engine, "before_cursor_execute", executed)


async def accepted(ledger: Ledger, *jobs: Job, due: float = NOW) -> None:
    await ledger.accept([(each, due) for each in jobs])


def wanted(
    *jobs: Job, key: str | None = None, print_: str = "same", until: float = NOW + 100, unique: Unique | None = None
) -> Request:
    """A request for these jobs; `unique` is the key of each of them."""
    return Request(
        jobs=tuple((each, NOW) for each in jobs),
        unique={each.id: unique for each in jobs} if unique else {},
        idempotency=Idempotency(key=key, fingerprint=print_, expires_at=until) if key else None,
    )


@contextlib.contextmanager
def frozen(server: PostgreSQL) -> Iterator[None]:
    """The server neither answers nor ends its connections, as on a machine that swaps or a disk that hangs."""
    first = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    pids = [first]
    os.kill(first, signal.SIGSTOP)  # first: it starts no more of them
    try:
        for pid in children(first):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                pids.append(pid)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
