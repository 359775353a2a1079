"""The servers of the test session: every test gets a place of its own, and killed servers come back."""

import aiormq
import psycopg
import pytest
import redis as redis_client

from tests.services import PostgreSQL, RabbitMQ, Redis


async def test_rabbitmq_gives_an_empty_vhost(rabbitmq: RabbitMQ, rabbitmq_url: str) -> None:
    connection = await aiormq.connect(rabbitmq_url)
    channel = await connection.channel()
    await channel.queue_declare("only-here")
    other = await aiormq.connect(rabbitmq.vhost())
    declared = await (await other.channel()).queue_declare("only-here")
    assert declared.message_count == 0
    await other.close()
    await connection.close()


def test_redis_gives_an_empty_database(redis: Redis, redis_url: str) -> None:
    with redis_client.Redis.from_url(redis_url) as first, redis_client.Redis.from_url(redis.database()) as second:
        first.set("only", "here")
        assert second.get("only") is None


def test_postgres_gives_an_empty_database(postgres: PostgreSQL, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE only_here (id int)")
    with psycopg.connect(postgres.database()) as connection:
        assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)


@pytest.mark.usefixtures("redis")
def test_a_killed_durable_server_comes_back_with_its_data() -> None:
    with Redis(durable=True) as server, redis_client.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
        server.kill()
        assert not server.running
        server.start()
        assert client.get("kept") == b"yes"
