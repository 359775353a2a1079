"""Statements on PostgreSQL, all in one round trip, by psycopg's pipeline.

They go past SQLAlchemy's execution, which takes more of the processor than the driver and the database together. The
statements are still SQLAlchemy's, and so is the transaction that they are in; errors are raised as SQLAlchemy's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import Connection, Dialect, Executable
from sqlalchemy.exc import DBAPIError

from dure.ledger.bulk import Call


class _Sql(NamedTuple):
    text: str
    constants: dict[str, Any]


async def send(connection: Connection, calls: Sequence[Call], *, commit: bool) -> list[Sequence[Mapping[str, Any]]]:
    """What each of these answers; with `commit` the transaction ends behind the last."""
    driver: psycopg.AsyncConnection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    cursors = []
    with _as_of_sqlalchemy(connection):
        async with driver.pipeline() if psycopg.Pipeline.is_supported() else nullcontext():
            for statement, rows in calls:
                text, constants = _compiled(statement, connection.dialect)
                cursor = driver.cursor(row_factory=dict_row)
                for row in rows:
                    await cursor.execute(text, constants | row)
                cursors.append(cursor)
            if commit:
                await driver.execute("COMMIT", prepare=False)
        return [await cursor.fetchall() if cursor.description else [] for cursor in cursors]


@lru_cache(256)
def _compiled(statement: Executable, dialect: Dialect) -> _Sql:
    compiled = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
    return _Sql(str(compiled), dict(compiled.params))


@contextmanager
def _as_of_sqlalchemy(connection: Connection) -> Iterator[None]:
    """The driver's errors as SQLAlchemy raises them, and a lost connection as one that its pool lets go."""
    try:
        yield
    except psycopg.Error as exc:
        is_lost = connection.dialect.is_disconnect(exc, connection.connection.dbapi_connection, None)  # type: ignore[arg-type]
        if is_lost:
            connection.invalidate(exc)
        raise DBAPIError.instance(
            None, None, exc, psycopg.Error, connection_invalidated=is_lost, dialect=connection.dialect
        ) from exc
