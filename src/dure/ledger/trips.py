"""Round trips to the database, as few as a transaction needs.

What a transaction writes and nobody looks at waits, and travels with what is asked next, or with the commit. So an
edge of a workflow takes two trips: one locks and asks, one writes and commits. Statements take effect in the order in
which they were given, for the database works them off one after the other; if one fails none behind it is done, not
even the commit.

SQLite, in this process, has no trips to save: there the statements are only executed in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.ledger.bulk import Call
from dure.ledger.rows import Row

Found = Sequence[Row]

# By transaction, so that what one that failed leaves behind is gone with it.
_waiting: WeakKeyDictionary[Connection, list[Call]] = WeakKeyDictionary()


def begin(connection: AsyncConnection) -> None:
    """Nothing waits in a new transaction."""
    _waiting[_sync(connection)] = []


def saves(connection: AsyncConnection) -> bool:
    """Whether what is asked along with other things costs less than what is asked by itself."""
    return connection.dialect.name == "postgresql"


def later(connection: AsyncConnection, *calls: Call) -> None:
    """Write this with the next trip. The statements are some that are made once and kept."""
    _waiting[_sync(connection)].extend(call for call in calls if call.rows)


async def ask(connection: AsyncConnection, *calls: Call) -> Sequence[Found]:
    """What each of these answers, in their order, with all written that waits. Each has one row of parameters."""
    waiting = _take(connection)
    if not saves(connection):
        await _execute(connection, waiting)
        return [(await connection.execute(call.statement, call.rows[0])).mappings().all() for call in calls]
    return (await _pipelined(connection, [*waiting, *calls]))[len(waiting) :]


async def flush(connection: AsyncConnection) -> None:
    """Write what waits: whoever asks by other means than `ask` does so first."""
    if waiting := _take(connection):
        if saves(connection):
            await _pipelined(connection, waiting)
        else:
            await _execute(connection, waiting)


async def finish(connection: AsyncConnection) -> None:
    """Write what waits, and commit with it where that saves a trip; nothing may follow."""
    if not saves(connection):
        await flush(connection)
    elif waiting := _take(connection):
        await _pipelined(connection, waiting, commit=True)


def guard(engine: Engine) -> None:
    """Refuse what is executed past these functions while something waits that was to be written before it."""
    event.listen(engine, "before_cursor_execute", _refuse_to_overtake)


def _refuse_to_overtake(connection: Connection, *_: Any) -> None:
    if _waiting.get(connection):
        raise RuntimeError("what was written before is still to be sent: flush it first")


async def _pipelined(connection: AsyncConnection, calls: Sequence[Call], *, commit: bool = False) -> Sequence[Found]:
    from dure.ledger.pipeline import send  # the driver, which who has no PostgreSQL need not load

    return await send(_sync(connection), calls, commit=commit)


async def _execute(connection: AsyncConnection, calls: Sequence[Call]) -> None:
    for statement, rows in calls:
        await connection.execute(statement, list(rows))


def _take(connection: AsyncConnection) -> list[Call]:
    its = _sync(connection)
    waiting, _waiting[its] = _waiting[its], []
    return waiting


def _sync(connection: AsyncConnection) -> Connection:
    assert connection.sync_connection is not None  # noqa: S101 - the transaction has begun
    return connection.sync_connection
