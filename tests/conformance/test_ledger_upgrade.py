"""Databases of an earlier version, with rows in them, are brought to the present schema."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection

import dure.ledger
from dure.errors import JobEnded
from dure.job import Job, State, Unique
from dure.ledger import JobFilter, Receipt
from dure.ledger.engine import connect
from dure.ledger.tables import metadata
from tests.conformance.ledgers import NOW, PATIENCE, Database, job, opened, told, wanted

FIRST = "0001"

# As the first version wrote them.
_JOB = "INSERT INTO jobs (id, state, attempts, origin, created_at, changed_at, "
ROWS = (
    _JOB + "task, args, kwargs, queue, tags, due_at, expires)"
    f" VALUES ('due', 'ACCEPTED', 0, 'dure', {NOW}, {NOW}, 't.add', '[1]', '{{}}', 'q', '[\"red\"]', {NOW}, {NOW + 9})",
    _JOB + "task, args, kwargs, queue, eta, due_at)"
    f" VALUES ('later', 'SCHEDULED', 0, 'dure', {NOW}, {NOW}, 't.add', '[]', '{{}}', 'q', {NOW + 50}, {NOW + 50})",
    _JOB + "task, args, kwargs, queue, queued_at, started_at, attempt, worker)"
    f" VALUES ('runs', 'STARTED', 1, 'dure', {NOW}, {NOW + 2}, 't.add', '[]', '{{}}', 'q', {NOW}, {NOW + 2}, 1, 'w@a')",
    _JOB + "task, args, kwargs, queue, attempt, finished_at, reason, error)"
    f" VALUES ('failed', 'FAILURE', 1, 'dure', {NOW}, {NOW}, 't.add', '[]', '{{}}', 'q', 1, {NOW}, 'worker-lost',"
    ' \'{"type":"E","message":"m"}\')',
    _JOB + "args_repr, result, attempt, finished_at)"
    f" VALUES ('foreign', 'SUCCESS', 1, 'celery', {NOW}, {NOW}, '(1,)', '5', 0, {NOW})",
    "INSERT INTO job_tags (tag, job_id) VALUES ('red', 'due')",
    "INSERT INTO queues (name) VALUES ('q')",
)


async def _on(database: Database, work: Any) -> Any:
    engines = connect(database.url, 1)
    try:
        async with engines.write.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engines.dispose()


def _to_the_first(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(dure.ledger.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, FIRST)


async def of_the_first_version(database: Database) -> None:
    await _on(database, _to_the_first)
    database.execute(*ROWS)
    assert database.rows("SELECT version_num FROM alembic_version") == [(FIRST,)]


async def test_rows_of_the_first_version_are_read_as_they_were(new_database: Database) -> None:
    await of_the_first_version(new_database)
    async with opened(new_database) as ledger:
        found = await ledger.some_jobs(["due", "later", "runs", "failed", "foreign"])
        listed = [each.id for each in (await ledger.jobs(JobFilter())).jobs]
        assert listed == ["foreign", "failed", "runs", "later", "due"]
        assert (await ledger.jobs(JobFilter(tag="red"))).jobs == (found["due"],)
        assert found["due"] == Job(
            id="due",
            task="t.add",
            args=[1],
            kwargs={},
            queue="q",
            tags=("red",),
            created_at=NOW,
            changed_at=NOW,
            expires=NOW + 9,
        )
        assert (found["foreign"].result, found["foreign"].state) == (5, State.SUCCESS)
        assert await ledger.queues() == ["q"]


async def test_a_database_of_the_first_version_does_what_a_new_one_does(new_database: Database) -> None:
    await of_the_first_version(new_database)
    async with opened(new_database) as ledger:
        assert await ledger.next_due() == NOW
        assert [each.id for each in await ledger.expired_jobs(NOW + 10, limit=9)] == ["due"]
        assert [each.id for each in await ledger.claim_due(NOW, lease=4, limit=9)] == ["due"]
        await ledger.mark_queued(["due"], NOW + 1)
        assert [each.id for each in await ledger.silent_jobs(NOW + 9, limit=9)] == ["due", "runs"]
        await ledger.mark_checked(["due"], NOW + 9)
        (group,) = await ledger.group_jobs(JobFilter(dead=True, retried=False))
        assert (group.fingerprint, group.count, group.latest.id) == (None, 1, "failed")
        for name in ("later", "runs"):
            cancelled = await ledger.request_cancel(name, NOW + 3, due_at=NOW + 4)
            assert cancelled is not None
        with pytest.raises(JobEnded):
            await ledger.request_cancel("failed", NOW + 3, due_at=NOW + 4)
        again = job(retry_of="failed", unique_key="k")
        for each in (again, job()):
            (receipt,) = await ledger.accept_once([wanted(each, key="i", unique=Unique(key="k"))], NOW)
            assert isinstance(receipt, Receipt)
            assert [made.id for made in receipt.jobs] == [again.id]
        assert await ledger.count_jobs(JobFilter(retried=True)) == 1
        (ended,) = await ledger.record([told("runs", State.FAILURE)])
        assert ended.fingerprint is not None


async def test_several_that_open_a_database_of_the_first_version_at_once_upgrade_it_once(
    new_database: Database,
) -> None:
    await of_the_first_version(new_database)

    async def use() -> int:
        async with opened(new_database) as ledger:
            return await ledger.count_jobs(JobFilter())

    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*(use() for _ in range(4))) == [5] * 4


async def test_the_migrations_make_the_tables_that_the_statements_are_written_for(new_database: Database) -> None:
    def differences(connection: Connection) -> Any:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    async with opened(new_database):
        pass
    assert await _on(new_database, differences) == []
