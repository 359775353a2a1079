"""Dead letters of the embedded broker and of RabbitMQ: the same queues lead to the same messages and headers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

import dure.broker  # noqa: F401


@pytest.fixture(params=["embedded", "rabbitmq"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    url = f"dure://{tmp_path}/broker.db" if request.param == "embedded" else request.getfixturevalue("rabbitmq_url")
    with Connection(url) as connection:
        Queue("dead", Exchange("dead", "fanout"), channel=connection.default_channel).declare()
        yield connection


def declare(connection: Connection, name: str, exchange: str = "dead", key: str | None = None, **limits: Any) -> None:
    """With dead letters to the exchange, which by a key and no name is the default one."""
    address = {"dead-letter-exchange": exchange, **({"dead-letter-routing-key": key} if key else {})}
    arguments = {f"x-{argument.replace('_', '-')}": value for argument, value in {**address, **limits}.items()}
    Queue(name, queue_arguments=arguments, channel=connection.default_channel).declare()


def publish(connection: Connection, queue: str, body: str = "x", **properties: Any) -> None:
    connection.Producer().publish(body, exchange="", routing_key=queue, headers={"id": "7"}, **properties)


def get(connection: Connection, queue: str) -> Any:
    return Queue(queue, channel=connection.default_channel).get()


def taken(connection: Connection, queue: str) -> Any:
    """The next message; RabbitMQ moves dead letters after it has answered."""
    deadline = time.monotonic() + 10
    while (message := get(connection, queue)) is None:
        assert time.monotonic() < deadline, f"nothing came to {queue!r}"
        time.sleep(0.005)
    return message


def deaths(letter: Any) -> list[dict[str, Any]]:
    """Without their times, once those are seen to be some."""
    for each in letter.headers["x-death"]:
        assert isinstance(each["time"], datetime | int)  # what kombu's AMQP makes of a timestamp, and a timestamp
    return [{name: value for name, value in each.items() if name != "time"} for each in letter.headers["x-death"]]


def death(reason: str, queue: str, *, count: int = 1, exchange: str = "", key: str | None = None) -> dict[str, Any]:
    keys = [queue if key is None else key]
    return {"count": count, "reason": reason, "queue": queue, "exchange": exchange, "routing-keys": keys}


def test_a_rejected_message_is_the_same_but_for_its_headers_and_expiration(connection: Connection) -> None:
    declare(connection, "q")
    publish(connection, "q", priority=1, expiration=100)
    taken(connection, "q").reject()
    letter = taken(connection, "dead")
    assert deaths(letter) == [{**death("rejected", "q"), "original-expiration": "100000"}]
    assert {name: value for name, value in letter.headers.items() if name != "x-death"} == {
        "id": "7",
        "x-first-death-reason": "rejected",
        "x-first-death-queue": "q",
        "x-first-death-exchange": "",
    }
    assert letter.payload == "x"
    assert letter.properties["priority"] == 1
    assert "expiration" not in letter.properties
    info = letter.delivery_info
    assert (info["exchange"], info["routing_key"], info["redelivered"]) == ("dead", "q", False)


def test_a_message_expires_by_its_own_time_and_by_its_queues(connection: Connection) -> None:
    declare(connection, "q")
    publish(connection, "q", expiration=0.001)
    assert deaths(taken(connection, "dead")) == [{**death("expired", "q"), "original-expiration": "1"}]
    declare(connection, "brief", key="why", message_ttl=1)
    publish(connection, "brief")
    letter = taken(connection, "dead")
    assert deaths(letter) == [death("expired", "brief")]
    assert letter.delivery_info["routing_key"] == "why"


def test_a_message_is_pushed_out_of_a_full_queue(connection: Connection) -> None:
    declare(connection, "few", max_length=1)
    publish(connection, "few", "old")
    publish(connection, "few", "new")
    letter = taken(connection, "dead")
    assert letter.payload == "old"
    assert deaths(letter) == [death("maxlen", "few")]
    assert get(connection, "few").payload == "new"


def test_a_message_is_delivered_once_more_than_the_limit_of_returns(connection: Connection) -> None:
    declare(connection, "q", queue_type="quorum", delivery_limit=2)
    publish(connection, "q")
    counts = []
    for _ in range(3):
        message = taken(connection, "q")
        counts.append(message.headers.get("x-delivery-count", 0))
        message.requeue()
    letter = taken(connection, "dead")
    assert counts == [0, 1, 2]
    assert deaths(letter) == [death("delivery_limit", "q")]
    assert get(connection, "q") is None


def test_a_closed_channel_counts_as_a_return(connection: Connection) -> None:
    declare(connection, "q", queue_type="quorum", delivery_limit=0)
    publish(connection, "q")
    with connection.channel() as channel:
        deadline = time.monotonic() + 10
        while Queue("q", channel=channel).get() is None:
            assert time.monotonic() < deadline
    assert deaths(taken(connection, "dead")) == [death("delivery_limit", "q")]


def test_a_message_that_clients_reject_may_go_round_and_is_counted(connection: Connection) -> None:
    declare(connection, "work", "", "pause")
    declare(connection, "pause", "", "work", message_ttl=1)
    publish(connection, "work")
    for _ in range(2):
        taken(connection, "work").reject()
    letter = taken(connection, "work")
    assert deaths(letter) == [death("expired", "pause", count=2), death("rejected", "work", count=2)]
    assert letter.headers["x-first-death-reason"] == "rejected"


def test_a_message_that_no_client_touches_does_not_go_round(connection: Connection) -> None:
    declare(connection, "one", "", "two", message_ttl=1)
    declare(connection, "two", "circle", message_ttl=1)
    circle = Exchange("circle", "fanout", channel=connection.default_channel)
    circle.declare()
    for name in ("one", "dead"):  # the letter that may not enter the one still enters the other
        Queue(name, channel=connection.default_channel).bind_to(circle)
    publish(connection, "one")
    assert deaths(taken(connection, "dead")) == [death("expired", "two"), death("expired", "one")]
    assert get(connection, "one") is None
