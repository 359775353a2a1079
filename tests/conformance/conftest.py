"""Each interface's implementations, as fixtures: a test that takes one runs on all."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import dure.broker  # noqa: F401 - teaches kombu dure://
from dure.ledger import Ledger
from dure.link import Link
from tests.conformance.ledgers import Database, opened
from tests.conformance.links import Broker
from tests.services import PostgreSQL


@pytest.fixture(scope="module")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "ledger.db"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="module")
def migrated_database(postgres: PostgreSQL) -> Iterator[str]:
    url = postgres.database()
    asyncio.run(_migrate(url))
    yield url.rpartition("/")[2]
    postgres.start().forget(url)


async def _migrate(url: str) -> None:
    ledger = Ledger(url)
    await ledger.open()
    await ledger.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with the present schema."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "ledger.db")
        yield Database("sqlite", f"sqlite:///{tmp_path}/ledger.db", None)
        return
    server: PostgreSQL = request.getfixturevalue("postgres")
    url = server.database(template=request.getfixturevalue("migrated_database"))
    yield Database("postgres", url, server)
    server.start().forget(url)


@pytest.fixture(params=["sqlite", "postgres"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database with nothing in it."""
    if request.param == "sqlite":
        return Database("sqlite", f"sqlite:///{tmp_path}/ledger.db", None)
    return Database("postgres", request.getfixturevalue("postgres_url"), request.getfixturevalue("postgres"))


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with opened(database) as ledger:
        yield ledger


@pytest.fixture(params=["embedded", "rabbitmq"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    if request.param == "embedded":
        broker = Broker("embedded", f"dure://{tmp_path}/broker.db", None)
    else:
        broker = Broker("rabbitmq", request.getfixturevalue("rabbitmq_url"), request.getfixturevalue("rabbitmq"))
    yield broker
    for link in broker.links:
        await link.close()


@pytest.fixture
async def link(broker: Broker) -> Link:
    return await broker.link()
