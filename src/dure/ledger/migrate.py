"""Brings a database to the schema that this version writes.

Several processes may start at once: on PostgreSQL an advisory lock lets one migrate while the others wait, on SQLite
the write transaction does. A database that is up to date is known by one read, without loading Alembic.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncEngine

HEAD = "0004"
_LOCK = 0x44757265  # "Dure" in ASCII


async def migrate(engine: AsyncEngine) -> None:
    if await _version(engine) == HEAD:
        return
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        await connection.run_sync(_upgrade)


async def _version(engine: AsyncEngine) -> str | None:
    try:
        async with engine.connect() as connection:
            version: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
            return version
    except DatabaseError as exc:
        if "alembic_version" in str(exc.orig):
            return None
        raise


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
