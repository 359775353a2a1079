"""Batches of results in Redis: a stored SUCCESS stays, whatever comes later and whoever is faster."""

import json
from typing import Any

import pytest
from redis import Redis

from dure.worker.aio.redis_results import MOST_BYTES, in_scripts, store_in_redis


@pytest.fixture
def client(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


def value(status: str, more: str = "") -> bytes:
    return json.dumps({"status": status, "more": more}).encode()


def is_success(stored: Any) -> bool:
    return json.loads(stored)["status"] == "SUCCESS"


def test_new_results_are_stored_announced_and_expire(client: Redis) -> None:
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("a")
    listener.get_message(timeout=5)
    store_in_redis(client, [(b"a", value("SUCCESS"), 100), (b"b", value("FAILURE"), 0)], is_success)
    assert client.get("a") == value("SUCCESS")
    assert 0 < client.ttl("a") <= 100
    assert client.ttl("b") == -1
    told = None
    while told is None:
        told = listener.get_message(timeout=20)
    assert told["data"] == value("SUCCESS")


def test_a_success_is_never_overwritten_and_anything_else_is(client: Redis) -> None:
    client.set("done", value("SUCCESS", "first"))
    client.set("open", value("STARTED"))
    entries = [(b"done", value("FAILURE"), 0), (b"open", value("FAILURE"), 0), (b"new", value("RETRY"), 0)]
    store_in_redis(client, entries, is_success)
    assert client.get("done") == value("SUCCESS", "first")
    assert client.get("open") == value("FAILURE")
    assert client.get("new") == value("RETRY")


def test_of_two_results_for_one_job_the_order_holds(client: Redis) -> None:
    entries = [(b"a", value("STARTED"), 0), (b"a", value("SUCCESS"), 0), (b"a", value("FAILURE"), 0)]
    store_in_redis(client, entries, is_success)
    assert client.get("a") == value("SUCCESS")


def test_a_success_that_comes_between_looking_and_replacing_stays(client: Redis) -> None:
    client.set("a", value("STARTED"))

    def slow(stored: Any) -> bool:
        if stored == value("STARTED"):
            client.set("a", value("SUCCESS", "faster"))
        return is_success(stored)

    store_in_redis(client, [(b"a", value("FAILURE"), 0)], slow)
    assert client.get("a") == value("SUCCESS", "faster")


def test_large_results_go_in_several_scripts_and_one_that_is_too_large_alone(client: Redis) -> None:
    half, whole = b"x" * (MOST_BYTES // 2), b"x" * (MOST_BYTES + 1)
    entries = [(b"a", half, 0), (b"b", half, 0), (b"c", b"small", 0), (b"d", whole, 0), (b"e", b"small", 0)]
    keys = [[key for key, _, _ in batch] for batch in in_scripts(entries)]
    assert keys == [[b"a", b"b"], [b"c"], [b"d"], [b"e"]]
    store_in_redis(client, entries, is_success)
    assert [len(client.get(key)) for key in "abcde"] == [len(half), len(half), 5, len(whole), 5]
