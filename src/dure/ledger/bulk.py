"""Many rows in one statement.

PostgreSQL takes them as one JSON value: one at a time, ten thousand of them take seconds. SQLite, in this process, has
no round trip to save.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Cast,
    ColumnElement,
    Executable,
    Insert,
    RowMapping,
    Select,
    Table,
    TableValuedAlias,
    Text,
    Update,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningUpdate

Row = dict[str, Any]

_TOLD = "told"  # the parameter that holds the rows
_LISTED = "listed"  # the one that holds the values to look among


class Call(NamedTuple):
    """A statement, and each row of parameters that it is executed with."""

    statement: Executable
    rows: Sequence[Row]


def among(connection: AsyncConnection, wanted: ColumnElement[Any], values: Collection[str]) -> ColumnElement[bool]:
    """`IN`, with one parameter however many values there are: a database takes only so many."""
    return wanted.in_(_elements(connection.dialect.name, literal(_json(list(values)), Text())))


def among_listed(dialect: str, wanted: ColumnElement[Any]) -> ColumnElement[bool]:
    """`among` the values of `listed`, for a statement that is made once: to make one takes as long as to run it."""
    return wanted.in_(_elements(dialect, bindparam(_LISTED, type_=Text())))


def among_numbers(
    connection: AsyncConnection, wanted: ColumnElement[Any], values: Collection[int]
) -> ColumnElement[bool]:
    elements = _elements(connection.dialect.name, literal(_json(list(values)), Text())).subquery()
    return wanted.in_(select(cast(elements.c.value, BigInteger())))


def listed(values: Collection[str]) -> Row:
    return {_LISTED: _json(list(values))}


def _elements(dialect: str, values: ColumnElement[str]) -> Select[Any]:
    if dialect == "postgresql":
        elements = func.json_array_elements_text(cast(values, JSON())).table_valued("value")
    else:
        elements = func.json_each(values).table_valued("value")
    return select(elements.c.value)


def inserting(connection: AsyncConnection, table: Table, rows: Sequence[Row]) -> Call:
    """All have the same columns."""
    if rows and _is_postgresql(connection):
        return Call(_insert(table, tuple(rows[0])), [{_TOLD: _json(rows)}])
    return Call(insert(table), rows)


async def insert_rows(connection: AsyncConnection, table: Table, rows: Sequence[Row]) -> None:
    """As `inserting`, at once."""
    await _execute(connection, inserting(connection, table, rows))


async def put_rows(connection: AsyncConnection, table: Table, key: str, rows: Sequence[Row]) -> None:
    """As `insert_rows`; a row whose `key` is there already takes the place of the old one."""
    if not rows:
        return
    names = tuple(rows[0])
    if _is_postgresql(connection):
        await connection.execute(_put(table, key, names), {_TOLD: _json(rows)})
    else:
        await connection.execute(_put_one(table, key, names), list(rows))


def updating(connection: AsyncConnection, table: Table, rows: Sequence[Row]) -> Call:
    """Each tells its `id` and what the other columns are to be; all have the same columns."""
    if not rows:
        return Call(update(table), rows)
    names = tuple(rows[0])
    if _is_postgresql(connection):
        return Call(_update(table, names), [{_TOLD: _json(rows)}])
    return Call(_update_one(table, names), [{f"new_{name}": row[name] for name in names} for row in rows])


async def update_rows(connection: AsyncConnection, table: Table, rows: Sequence[Row]) -> None:
    """As `updating`, at once."""
    await _execute(connection, updating(connection, table, rows))


async def _execute(connection: AsyncConnection, call: Call) -> None:
    if call.rows:
        await connection.execute(call.statement, list(call.rows))


async def add_to_rows(
    connection: AsyncConnection, table: Table, what: str, rows: Sequence[Row]
) -> Sequence[RowMapping]:
    """As `update_rows`, where the column `what` grows by what is told of it; returns the rows as they are then."""
    if not rows:
        return []
    names = tuple(rows[0])
    if _is_postgresql(connection):
        return list((await connection.execute(_add(table, what, names), {_TOLD: _json(rows)})).mappings())
    one = _add_one(table, what, names)
    changed: list[RowMapping] = []
    for row in rows:
        changed += (await connection.execute(one, {f"new_{name}": row[name] for name in names})).mappings()
    return changed


@cache
def _insert(table: Table, names: tuple[str, ...]) -> Insert:
    told = _recordset(table, names)
    return insert(table).from_select(list(names), select(*(told.c[name] for name in names)), include_defaults=False)


@cache
def _put(table: Table, key: str, names: tuple[str, ...]) -> Insert:
    told = _recordset(table, names)
    put = postgresql.insert(table).from_select(list(names), select(*(told.c[n] for n in names)), include_defaults=False)
    new = {name: put.excluded[name] for name in names if name != key}
    return put.on_conflict_do_update(index_elements=[key], set_=new)


@cache
def _put_one(table: Table, key: str, names: tuple[str, ...]) -> Insert:
    put = sqlite.insert(table)
    new = {name: put.excluded[name] for name in names if name != key}
    return put.on_conflict_do_update(index_elements=[key], set_=new)


@cache
def _update(table: Table, names: tuple[str, ...]) -> Update:
    told = _recordset(table, names)
    return update(table).where(table.c.id == told.c.id).values({name: told.c[name] for name in names if name != "id"})


@cache
def _update_one(table: Table, names: tuple[str, ...]) -> Update:
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names if name != "id"}
    return update(table).where(table.c.id == bindparam("new_id")).values(values)


@cache
def _add(table: Table, what: str, names: tuple[str, ...]) -> ReturningUpdate[Any]:
    told = _recordset(table, names)
    values: dict[str, Any] = {name: told.c[name] for name in names if name != "id"}
    values[what] = table.c[what] + told.c[what]
    return update(table).where(table.c.id == told.c.id).values(values).returning(*table.c)


@cache
def _add_one(table: Table, what: str, names: tuple[str, ...]) -> ReturningUpdate[Any]:
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names if name != "id"}
    values[what] = table.c[what] + bindparam(f"new_{what}")
    return update(table).where(table.c.id == bindparam("new_id")).values(values).returning(*table.c)


def _recordset(table: Table, names: tuple[str, ...]) -> TableValuedAlias:
    rows: Cast[Any] = cast(bindparam(_TOLD, type_=Text()), JSON())
    typed = [column(name, table.c[name].type) for name in names]
    return func.json_to_recordset(rows).table_valued(*typed, name="told").render_derived(with_types=True)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _is_postgresql(connection: AsyncConnection) -> bool:
    return connection.dialect.name == "postgresql"
