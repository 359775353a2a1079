"""Databases that are new, away, locked, full or broken."""

import asyncio
import contextlib
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as engine_event

from dure.errors import LedgerUnavailable
from dure.job import Job, State, Unique
from dure.ledger import JobFilter, Ledger, Receipt
from tests.conformance.ledger_processes import killed_in_the_middle
from tests.conformance.ledgers import NOW, PATIENCE, Database, accepted, frozen, job, opened, told, wanted

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
        async with asyncio.timeout(PATIENCE):
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
            async with asyncio.timeout(PATIENCE):
                await accepted(ledger, job(n))
            writing = asyncio.ensure_future(ledger.record([told(f"x{n}", State.STARTED)]))
            await asyncio.wait([writing], timeout=chance.random() * 0.004)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
    async with opened(database) as ledger, asyncio.timeout(PATIENCE):
        await accepted(ledger, job(99))


# A database that does not answer at all.

READS: dict[str, Callable[[Ledger], Awaitable[Any]]] = {
    "ping": lambda ledger: ledger.ping(),
    "job": lambda ledger: ledger.job("x"),
    "jobs": lambda ledger: ledger.jobs(JobFilter()),
    "next_due": lambda ledger: ledger.next_due(),
    "silent_jobs": lambda ledger: ledger.silent_jobs(NOW, limit=1),
}


async def in_no_time(asked: Awaitable[Any], at_most: float) -> None:
    began = time.monotonic()
    with pytest.raises(LedgerUnavailable):
        await asked
    assert time.monotonic() - began < at_most


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_database_that_hangs_is_given_up_in_time_by_readers_and_answers_when_it_goes_on(
    database: Database,
) -> None:
    assert database.server is not None
    async with opened(database, timeout=2, pool_size=4) as ledger:
        await asyncio.gather(*(ledger.ping() for _ in range(4)))
        with frozen(database.server):
            await asyncio.gather(*(in_no_time(ask(ledger), 8) for ask in READS.values()))
            await in_no_time(ledger.ping(), 8)  # though every connection is taken
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(LedgerUnavailable):
                    await asyncio.gather(*(ledger.ping() for _ in range(8)))
                    break
            await accepted(ledger, job())


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_write_to_a_database_that_hangs_is_carried_to_its_end_though_its_caller_has_gone(
    database: Database,
) -> None:
    assert database.server is not None
    async with opened(database, timeout=2) as ledger:
        known, first, second = job(1), job(2), job(3)
        await accepted(ledger, known)
        with frozen(database.server):
            calls: list[asyncio.Future[Any]] = [
                asyncio.ensure_future(ledger.accept_once([wanted(first, key="k")], NOW)),
                asyncio.ensure_future(accepted(ledger, second)),
                asyncio.ensure_future(ledger.record([told(known.id, State.STARTED)])),
            ]
            assert not (await asyncio.wait(calls, timeout=0.3))[0]
            for call in calls:
                call.cancel()
            assert not [call for call in (await asyncio.wait(calls, timeout=1))[0] if not call.cancelled()]

        async with asyncio.timeout(PATIENCE):
            while len(found := await ledger.some_jobs([known.id, first.id, second.id])) < 3:
                await asyncio.sleep(0.02)
            while found[known.id].state is not State.STARTED:
                found = await ledger.some_jobs([known.id])
            (again,) = await ledger.accept_once([wanted(job(), key="k")], NOW)
            assert isinstance(again, Receipt)
            assert again.jobs == (first,)
            await ledger.mark_queued([first.id, second.id], NOW)
        idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in %'"
        assert database.rows(idle) == [(0,)]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_ledger_closes_though_its_database_hangs(database: Database) -> None:
    assert database.server is not None
    ledger = Ledger(database.url, timeout=2)
    await ledger.open()
    with frozen(database.server):
        writing = asyncio.ensure_future(accepted(ledger, job()))
        await in_no_time(ledger.ping(), 8)
        async with asyncio.timeout(8):
            await ledger.close()
    await asyncio.wait([writing], timeout=PATIENCE)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_while_another_process_holds_a_file_nothing_of_a_write_is_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dure.ledger.engine._BUSY_SECONDS", 0.1)
    known, new = job(1), job(2)
    async with opened(database) as ledger:
        await accepted(ledger, known)
        holding = subprocess.Popen(
            [sys.executable, "-c", HOLD, database.url.removeprefix("sqlite://")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holding.stdout is not None
        assert holding.stdout.readline() == b"held\n"
        writes: list[Awaitable[Any]] = [
            ledger.accept_once([wanted(new, key="k", unique=Unique(key="u"))], NOW),
            ledger.request_cancel(known.id, NOW, due_at=NOW),
            ledger.claim_due(NOW, lease=4, limit=9),
            ledger.mark_queued([known.id], NOW),
            ledger.drop_expired_keys(NOW + 1e6),
        ]
        for write in writes:
            with pytest.raises(LedgerUnavailable):
                await write
        assert (await ledger.jobs(JobFilter())).jobs == (known,)  # reading goes on
        holding.communicate(timeout=PATIENCE)
        async with asyncio.timeout(PATIENCE):
            (made,) = await ledger.accept_once([wanted(new, key="k", unique=Unique(key="u"))], NOW)
        assert isinstance(made, Receipt)
        assert made.created == {new.id}
        assert database.due() == {known.id: NOW, new.id: NOW}


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""

# A process that dies in the middle.

KNOWN, OURS = job(1), job(2)
CUT_OFF: list[tuple[str, int, tuple[Any, ...], dict[str, Any]]] = [
    ("accept", 1, ([(OURS, NOW)],), {}),
    ("accept_once", 1, ([wanted(OURS, job(3), key="k", unique=Unique(key="u"))], NOW), {}),
    ("claim_due", 1, (NOW,), {"lease": 4, "limit": 9}),
    ("request_cancel", 1, (KNOWN.id, NOW), {"due_at": NOW + 9}),
    ("record", 1, ([told(KNOWN.id, State.SUCCESS)],), {}),
]


@pytest.mark.parametrize(("method", "commit", "args", "kwargs"), CUT_OFF, ids=[cut[0] for cut in CUT_OFF])
async def test_of_a_process_that_was_killed_before_its_commit_nothing_is_kept_and_nothing_is_locked(
    database: Database, method: str, commit: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    async with opened(database) as ledger:
        await accepted(ledger, KNOWN)
        await asyncio.to_thread(killed_in_the_middle, database.url, commit, method, *args, **kwargs)
        assert (await ledger.jobs(JobFilter())).jobs == (KNOWN,)
        assert database.due() == {KNOWN.id: NOW}
        async with asyncio.timeout(PATIENCE):
            (made,) = await ledger.accept_once([wanted(OURS, key="k", unique=Unique(key="u"))], NOW)
            assert isinstance(made, Receipt)
            assert made.created == {OURS.id}
            assert isinstance(await ledger.request_cancel(KNOWN.id, NOW, due_at=NOW), Job)
