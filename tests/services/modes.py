"""What differs between the two modes: the servers that a site is told of."""

import pytest

from tests.services import PostgreSQL, RabbitMQ, Redis


def servers_of(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment for the mode that a fixture is asked for: `embedded` or `production`, with servers of its own."""
    if request.param == "embedded":
        return {}
    rabbitmq: RabbitMQ = request.getfixturevalue("rabbitmq")
    postgres: PostgreSQL = request.getfixturevalue("postgres")
    redis: Redis = request.getfixturevalue("redis")
    return {
        "DURE_BROKER_URL": rabbitmq.start().vhost(),
        "DURE_LEDGER_URL": postgres.start().database(),
        "DURE_RESULT_BACKEND": redis.start().database(),
    }
