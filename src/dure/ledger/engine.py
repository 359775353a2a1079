"""Engines for the two databases.

SQLite has one writer at a time, so writes have an engine of one connection whose transactions begin IMMEDIATE: they
wait for the lock at the start and never fail in the middle. `synchronous=FULL` makes a committed row outlive a power
cut; group commit pays for it once a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from dure.url import file_path, scheme

_BUSY_SECONDS = 10

# libpq: a peer that is gone without a word is noticed within about fifteen seconds, idle or in the middle of a call.
_ALIVE = {"keepalives_idle": 5, "keepalives_interval": 3, "keepalives_count": 3, "tcp_user_timeout": 15_000}


@dataclass(frozen=True, slots=True)
class Engines:
    """`write` and `read` share their connections on PostgreSQL; `one` is for a write of one statement."""

    write: AsyncEngine
    one: AsyncEngine
    read: AsyncEngine

    async def dispose(self) -> None:
        await self.write.dispose()
        await self.read.dispose()


def connect(url: str, pool_size: int) -> Engines:
    return _sqlite(file_path(url)) if scheme(url) == "sqlite" else _postgresql(url, pool_size)


def _postgresql(url: str, pool_size: int) -> Engines:
    engine = create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        pool_use_lifo=True,  # what is prepared on a connection is used again
        connect_args={"connect_timeout": 5, "application_name": "dure", **_ALIVE},
    )
    # In a transaction one statement would take three, and psycopg forgets what it has prepared whenever one is rolled
    # back.
    single = engine.execution_options(isolation_level="AUTOCOMMIT")
    return Engines(engine, single, single)


def _sqlite(path: Path) -> Engines:
    write = _sqlite_engine(path, pool_size=1)
    read = _sqlite_engine(path, pool_size=4)
    event.listen(write.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return Engines(write, write, read)


def _sqlite_engine(path: Path, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        poolclass=AsyncAdaptedQueuePool,
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None},
    )
    event.listen(engine.sync_engine, "do_connect", lambda *_: path.parent.mkdir(parents=True, exist_ok=True))
    event.listen(engine.sync_engine, "connect", _pragmas)
    return engine


def _pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
