"""Dead letters and delivery limits of the store, where the model of `test_broker_properties` does not look."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from dure.broker.errors import BrokerUnavailable
from dure.broker.store import Message, QueueDepth, Store

TO_DEAD = {"x-dead-letter-exchange": "dead"}


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[Store]:
    store = Store(path, now=clock)
    store.declare_exchange("dead", "fanout")
    store.declare_queue("dead")
    store.bind("dead", "dead")
    store.declare_queue("q", arguments=TO_DEAD)
    yield store
    store.close()


@pytest.fixture
def other(path: Path, clock: Clock) -> Iterator[Store]:
    other = Store(path, now=clock)
    yield other
    other.close()


def to(queue: str, body: str = "x", **properties: object) -> Message:
    return Message("", queue, body, properties)


def bodies(store: Store, queue: str = "dead") -> list[bytes | str]:
    return [delivery.message.body for delivery in store.claim([queue], 100)]


def heard(store: Store) -> bool:
    return bool(select.select([store.fileno()], [], [], 1)[0])


def test_a_dead_letter_tells_of_its_death_and_is_otherwise_what_it_was(store: Store, clock: Clock) -> None:
    store.publish([Message("", "q", b"\xff", {"headers": {"id": "1", "raw": b"\0"}, "expiration": "60000"})])
    (delivery,) = store.claim(["q"], 1)
    clock.now += 1.7
    store.reject([delivery.tag], requeue=False)
    (dead,) = store.claim(["dead"], 1)
    assert (dead.queue, dead.deliveries) == ("dead", 1)
    assert dead.message == Message(
        "dead",
        "q",
        b"\xff",
        {
            "headers": {
                "id": "1",
                "raw": b"\0",
                "x-first-death-reason": "rejected",
                "x-first-death-queue": "q",
                "x-first-death-exchange": "",
                "x-death": [
                    {
                        "count": 1,
                        "reason": "rejected",
                        "queue": "q",
                        "time": 1_000_001,
                        "exchange": "",
                        "routing-keys": ["q"],
                        "original-expiration": "60000",
                    }
                ],
            }
        },
    )


@pytest.mark.parametrize("written", ["nonsense", ["nonsense"], [{"count": "many", "reason": "rejected", "queue": "q"}]])
def test_what_a_client_wrote_in_place_of_deaths_does_no_harm(store: Store, written: object) -> None:
    store.publish([to("q", headers={"x-death": written})])
    store.reject([store.claim(["q"], 1)[0].tag], requeue=False)
    death = store.claim(["dead"], 1)[0].message.properties["headers"]["x-death"][0]
    assert (death["count"], death["reason"], death["queue"]) == (1, "rejected", "q")


def test_a_death_wakes_the_consumers_of_the_dead(store: Store, other: Store, clock: Clock) -> None:
    other.consume("dead")
    store.publish([to("q", "rejected"), to("q", "expired", expiration="1000")])
    store.reject([store.claim(["q"], 1)[0].tag], requeue=False)
    assert heard(other)
    other.drain_wakes()
    clock.now += 2
    assert bodies(store, "q") == []
    assert heard(other)
    assert bodies(other) == ["rejected", "expired"]


def test_what_has_expired_does_not_hide_what_has_not(store: Store, clock: Clock) -> None:
    store.publish([to("q", str(n), expiration="1000") for n in range(7)] + [to("q", "lives")])
    clock.now += 2
    assert [d.message.body for d in store.claim(["q"], 2)] == ["lives"]
    assert bodies(store) == [str(n) for n in range(7)]
    assert store.depth("q") == QueueDepth("q", 0, 0)


def test_housekeeping_moves_any_number_of_expired_messages(store: Store, clock: Clock) -> None:
    store.publish([to("q", str(n), expiration="1000") for n in range(2500)])
    clock.now += 2
    store._cleaned_at = 0.0
    store.claim([], 1)
    assert store.depth("q") == QueueDepth("q", 0, 0)
    assert store.depth("dead") == QueueDepth("dead", 2500, 0)


def test_without_a_dead_letter_exchange_an_exhausted_message_is_dropped(store: Store) -> None:
    store.declare_queue("hopeless", arguments={"x-delivery-limit": 1})
    store.publish([to("hopeless")])
    for count in (1, 2):
        (delivery,) = store.claim(["hopeless"], 1)
        assert delivery.deliveries == count
        store.reject([delivery.tag], requeue=True)
    assert [depth.messages for depth in store.queues()] == [0, 0, 0]
    assert store.holds("hopeless", ["x"]) == set()


def test_a_negative_delivery_limit_is_none(store: Store) -> None:
    store.declare_queue("patient", arguments={"x-delivery-limit": -1})
    store.publish([to("patient")])
    for _ in range(3):
        (delivery,) = store.claim(["patient"], 1)
        store.reject([delivery.tag], requeue=True)
    assert store.depth("patient") == QueueDepth("patient", 1, 0)


def test_purging_and_deleting_make_no_dead_letters(store: Store) -> None:
    store.publish([to("q")] * 2)
    assert store.purge("q") == 2
    store.publish([to("q")] * 2)
    assert store.delete_queue("q") == 2
    assert bodies(store) == []


def test_a_queue_that_has_none_gets_dead_letters_and_a_limit_from_a_later_declaration(
    store: Store, other: Store
) -> None:
    store.declare_queue("late")
    store.publish([to("late")])
    other.publish([])  # it knows the queues as they are
    store.declare_queue("late", arguments={**TO_DEAD, "x-dead-letter-routing-key": "why", "x-delivery-limit": 0})
    store.declare_queue("late", arguments={"x-dead-letter-exchange": "nowhere", "x-delivery-limit": 9})
    store.declare_queue("late", arguments={"x-max-length": 0})
    other.reject([other.claim(["late"], 1)[0].tag], requeue=True)
    (dead,) = store.claim(["dead"], 1)
    assert dead.message.routing_key == "why"
    assert dead.message.properties["headers"]["x-death"][0]["reason"] == "delivery_limit"


def test_a_later_routing_key_does_not_go_to_an_earlier_exchange(store: Store) -> None:
    store.declare_queue("q", arguments={"x-dead-letter-exchange": "other", "x-dead-letter-routing-key": "why"})
    store.publish([to("q")])
    store.reject([store.claim(["q"], 1)[0].tag], requeue=False)
    assert store.claim(["dead"], 1)[0].message.routing_key == "q"


def test_a_letter_that_finds_the_disk_full_stays_where_it_was(store: Store) -> None:
    store.declare_queue("copies")
    store.bind("copies", "dead")
    store.publish([to("q", "x" * 3000)] * 20)
    tags = [delivery.tag for delivery in store.claim(["q"], 20)]
    with store._database.write() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
    store._database._open().execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(BrokerUnavailable, match="full"):
        store.reject(tags, requeue=False)
    assert [depth.messages for depth in store.queues()] == [0, 0, 0]
    store._database._open().execute("PRAGMA max_page_count = 1000000")
    store.reject(tags, requeue=True)
    assert store.depth("q") == QueueDepth("q", 20, 0)
