"""Databases for the conformance suite of ledgers, and what is written to them."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg

from dure.event import JobEvent
from dure.job import Job, State
from dure.ledger import Ledger
from tests.services import PostgreSQL

NOW = 1_800_000_000.0


PATIENCE = 20.0


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


@contextlib.asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Ledger]:
    ledger = Ledger(database.url)
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


async def accepted(ledger: Ledger, *jobs: Job, due: float = NOW) -> None:
    await ledger.accept([(each, due) for each in jobs])
