"""Databases that are new, away, locked, full or broken."""

import asyncio
import contextlib
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as engine_event

from dure.errors import LedgerUnavailable
from dure.job import State
from dure.ledger import JobFilter, Ledger
from tests.conformance.ledgers import PATIENCE, Database, accepted, job, opened, told

MIGRATE = "import asyncio, sys; from dure.ledger import Ledger; l = Ledger(sys.argv[1]); asyncio.run(l.open())"


async def test_several_processes_may_open_a_new_database_at_once(new_database: Database) -> None:
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    processes = [
        subprocess.Popen([sys.executable, "-c", MIGRATE, new_database.url], env=environment, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    told_of = [process.communicate(timeout=PATIENCE)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, told_of
    async with opened(new_database) as ledger:
        await accepted(ledger, job())


async def test_opening_and_closing_twice_is_fine(new_database: Database) -> None:
    ledger = Ledger(new_database.url)
    await ledger.open()
    await ledger.open()
    await ledger.close()
    await ledger.close()


# A database that cannot be used now.


@contextlib.contextmanager
def locked(database: Database) -> Any:
    """Somebody else holds what a write needs."""
    with contextlib.closing(
        sqlite3.connect(database.url.removeprefix("sqlite://"), isolation_level=None)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextlib.contextmanager
def killed(database: Database) -> Any:
    assert database.server is not None
    database.server.execute("CHECKPOINT")  # this server's disk is not made safe otherwise
    database.server.kill()
    yield
    database.server.start()


@contextlib.contextmanager
def read_only(database: Database) -> Any:
    assert database.server is not None
    name = database.url.rpartition("/")[2]
    end = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"
    database.server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database.server.execute(end)
    yield
    database.server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    database.server.execute(end)


TROUBLES = [("sqlite", locked), ("postgres", killed), ("postgres", read_only)]


@pytest.mark.parametrize(("database", "trouble"), TROUBLES, indirect=["database"])
async def test_a_write_to_a_database_in_trouble_is_refused_and_the_next_one_works(
    database: Database, trouble: Callable[[Database], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dure.ledger.engine._BUSY_SECONDS", 0.1)
    async with opened(database) as ledger:
        await accepted(ledger, job(1))
        with trouble(database):
            for _ in range(2):
                with pytest.raises(LedgerUnavailable) as caught:
                    await accepted(ledger, job(2))
                assert caught.value.detail
            with pytest.raises(LedgerUnavailable):
                await ledger.record([told("x", State.STARTED)])
        async with asyncio.timeout(PATIENCE):
            while True:  # a connection of before may fail once more
                with contextlib.suppress(LedgerUnavailable):
                    await accepted(ledger, job(3))
                    break
        numbers = [each.args for each in (await ledger.jobs(JobFilter())).jobs]
        assert numbers == [[3], [1]]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("pragma", ["query_only=ON", "max_page_count=1"])
async def test_a_file_that_cannot_grow_or_be_written_is_unavailable(database: Database, pragma: str) -> None:
    async with opened(database) as ledger:
        await accepted(ledger, job(1))
        await ledger.close()
        engine = ledger._engines.write.sync_engine
        engine_event.listen(engine, "connect", lambda connection, _: connection.execute(f"PRAGMA {pragma}"))
        with pytest.raises(LedgerUnavailable):
            await accepted(ledger, job(2, args=["x" * 100_000]))
        assert len((await ledger.jobs(JobFilter())).jobs) == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # PostgreSQL has no lock of the whole database
async def test_reads_go_on_beside_a_long_write(database: Database, ledger: Ledger) -> None:
    with locked(database):
        async with asyncio.timeout(2):
            assert (await ledger.jobs(JobFilter())).jobs == ()


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_no_server_at_all_is_unavailable_soon(database: Database) -> None:
    away = replace(database, url="postgresql://postgres@127.0.0.1:9/none")
    ledger = Ledger(away.url)
    began = time.monotonic()
    with pytest.raises(LedgerUnavailable) as caught:
        await ledger.open()
    assert time.monotonic() - began < 10
    assert "127.0.0.1" in caught.value.detail
    await ledger.close()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_file_that_is_no_database_is_unavailable(database: Database) -> None:
    Path(database.url.removeprefix("sqlite://")).write_bytes(b"This is no database. " * 100)
    ledger = Ledger(database.url)
    with pytest.raises(LedgerUnavailable):
        await ledger.open()
    await ledger.close()


@pytest.mark.parametrize("seed", range(3))
async def test_a_write_whose_caller_was_cancelled_leaves_no_lock_behind(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    for n in range(8):
        async with opened(database) as ledger:
            async with asyncio.timeout(5):
                await accepted(ledger, job(n))
            writing = asyncio.ensure_future(ledger.record([told(f"x{n}", State.STARTED)]))
            await asyncio.wait([writing], timeout=chance.random() * 0.004)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
    async with opened(database) as ledger, asyncio.timeout(5):
        await accepted(ledger, job(99))
