"""Fixtures for real servers. A test that names one of them gets it; the servers start beside the first tests."""

import os
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import HealthCheck, settings

from tests.services import Fleet, PostgreSQL, RabbitMQ, Redis, Service

# How long an example takes says nothing on a machine that does other things too.
settings.register_profile("dure", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dure")

FLEET = pytest.StashKey[Fleet]()


def _wanted(item: pytest.Item) -> set[str]:
    return Fleet.kinds.keys() & set(getattr(item, "fixturenames", ()))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FLEET] = Fleet()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: bool(_wanted(item)))  # what needs no server runs while the servers start


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.option.collectonly:
        for name in {name for item in session.items for name in _wanted(item)}:
            if Fleet.kinds[name].missing() is None:
                session.config.stash[FLEET].begin(name)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[FLEET].close()


def _running(name: str, config: pytest.Config) -> Service:
    if why := Fleet.kinds[name].missing():
        if os.environ.get("CI") == "true":
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    return config.stash[FLEET].get(name)


@pytest.fixture(scope="session")
def rabbitmq(pytestconfig: pytest.Config) -> RabbitMQ:
    return cast(RabbitMQ, _running("rabbitmq", pytestconfig))


@pytest.fixture(scope="session")
def redis(pytestconfig: pytest.Config) -> Redis:
    return cast(Redis, _running("redis", pytestconfig))


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> PostgreSQL:
    return cast(PostgreSQL, _running("postgres", pytestconfig))


@pytest.fixture
def rabbitmq_url(rabbitmq: RabbitMQ) -> Iterator[str]:
    """A vhost of the test's own."""
    url = rabbitmq.start().vhost()
    yield url
    rabbitmq.start().forget(url)


@pytest.fixture
def redis_url(redis: Redis) -> str:
    """An empty database."""
    return redis.start().database()


@pytest.fixture
def postgres_url(postgres: PostgreSQL) -> Iterator[str]:
    """A database of the test's own."""
    url = postgres.start().database()
    yield url
    postgres.start().forget(url)
