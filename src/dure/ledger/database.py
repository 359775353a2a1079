"""A database, and what goes for every call to it: it is one transaction, and it is answered in time or refused.

A database that is away, locked or full raises LedgerUnavailable, and nothing of the call is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.errors import LedgerUnavailable
from dure.ledger import writes
from dure.ledger.engine import connect
from dure.ledger.migrate import migrate
from dure.ledger.trips import guard

P = ParamSpec("P")
Answer = TypeVar("Answer")
Its = TypeVar("Its", bound="Database")


def whole(
    write: Callable[Concatenate[Its, P], Coroutine[Any, Any, Answer]],
) -> Callable[Concatenate[Its, P], Coroutine[Any, Any, Answer]]:
    """Carry a transaction to its end though its caller goes away: cut off in the middle, it would keep its locks."""

    @wraps(write)
    async def carried(self: Its, /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        return await asyncio.shield(self._begin(write(self, *args, **kwargs)))

    return carried


class Database:
    """`url` is `sqlite:///…` or `postgresql://…`; `open` brings it to the present schema."""

    def __init__(self, url: str, *, pool_size: int, timeout: float) -> None:
        self._engines = connect(url, pool_size)
        guard(self._engines.write.sync_engine)
        self._timeout = timeout
        self._under_way: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        async with _translated():
            await migrate(self._engines.write)

    async def close(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._timeout)
        await self._engines.dispose()

    def _begin(self, call: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
        task = asyncio.create_task(call)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen, though its caller may have gone

    async def ping(self) -> None:
        await self._read(lambda connection: connection.execute(text("SELECT 1")))

    async def _read(self, ask: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
        asking = self._begin(self._ask(ask))
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(asking)
        except TimeoutError:
            raise LedgerUnavailable(f"no answer in {self._timeout:g} s") from None
        finally:
            asking.cancel()  # not waited for: on a database that hangs the driver needs ten seconds more to give up

    async def _ask(self, ask: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
        async with _translated(), self._engines.read.connect() as connection:
            return await ask(connection)

    @asynccontextmanager
    async def _writing_once(self) -> AsyncIterator[AsyncConnection]:
        """For one statement."""
        async with _translated(), self._engines.one.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        strange = None
        async with _translated(), self._engines.write.begin() as connection:
            try:
                yield connection
            except writes.Strange as exc:
                strange = exc  # nothing is written yet; psycopg forgets what it has prepared when a transaction fails
        if strange is not None:
            raise strange


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, InternalError, PoolTimeout) as exc:
        raise LedgerUnavailable(_first_line(exc)) from exc
    except DBAPIError as exc:
        # SQLite's plain DatabaseError says that the file is none, or is broken.
        if exc.connection_invalidated or type(exc) is DatabaseError:
            raise LedgerUnavailable(_first_line(exc)) from exc
        raise


def _first_line(exc: Exception) -> str:
    cause = exc.orig if isinstance(exc, DBAPIError) and exc.orig else exc
    return str(cause).partition("\n")[0] or type(cause).__name__
