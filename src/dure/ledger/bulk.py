"""Many rows in one statement.

PostgreSQL takes them as one JSON value: one at a time, ten thousand of them take seconds. SQLite, in this process, has
no round trip to save.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import (
    JSON,
    Cast,
    ColumnElement,
    Insert,
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
from sqlalchemy.ext.asyncio import AsyncConnection

Row = dict[str, Any]

_TOLD = "told"  # the parameter that holds the rows


def among(connection: AsyncConnection, wanted: ColumnElement[Any], values: Collection[str]) -> ColumnElement[bool]:
    """`IN`, with one parameter however many values there are: a database takes only so many."""
    listed = literal(_json(list(values)), Text())
    if _is_postgresql(connection):
        elements = func.json_array_elements_text(cast(listed, JSON())).table_valued("value")
    else:
        elements = func.json_each(listed).table_valued("value")
    return wanted.in_(select(elements.c.value))


async def insert_rows(connection: AsyncConnection, table: Table, rows: Sequence[Row]) -> None:
    """All have the same columns."""
    if not rows:
        return
    if _is_postgresql(connection):
        await connection.execute(_insert(table, tuple(rows[0])), {_TOLD: _json(rows)})
    else:
        await connection.execute(insert(table), list(rows))


async def update_rows(connection: AsyncConnection, table: Table, rows: Sequence[Row]) -> None:
    """Each tells its `id` and what the other columns are to be; all have the same columns."""
    if not rows:
        return
    names = tuple(rows[0])
    if _is_postgresql(connection):
        await connection.execute(_update(table, names), {_TOLD: _json(rows)})
    else:
        await connection.execute(
            _update_one(table, names), [{f"new_{name}": row[name] for name in names} for row in rows]
        )


@cache
def _insert(table: Table, names: tuple[str, ...]) -> Insert:
    told = _recordset(table, names)
    return insert(table).from_select(list(names), select(*(told.c[name] for name in names)), include_defaults=False)


@cache
def _update(table: Table, names: tuple[str, ...]) -> Update:
    told = _recordset(table, names)
    return update(table).where(table.c.id == told.c.id).values({name: told.c[name] for name in names if name != "id"})


@cache
def _update_one(table: Table, names: tuple[str, ...]) -> Update:
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names if name != "id"}
    return update(table).where(table.c.id == bindparam("new_id")).values(values)


def _recordset(table: Table, names: tuple[str, ...]) -> TableValuedAlias:
    rows: Cast[Any] = cast(bindparam(_TOLD, type_=Text()), JSON())
    typed = [column(name, table.c[name].type) for name in names]
    return func.json_to_recordset(rows).table_valued(*typed, name="told").render_derived(with_types=True)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _is_postgresql(connection: AsyncConnection) -> bool:
    return connection.dialect.name == "postgresql"
