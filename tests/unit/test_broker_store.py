from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dure.broker.errors import ExchangeMismatch, QueueLocked, QueueNotFound
from dure.broker.store import Claim, Message, QueueDepth, Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path)
    store.declare_queue("q")
    yield store
    store.close()


@pytest.fixture
def other(path: Path) -> Iterator[Store]:
    other = Store(path)
    yield other
    other.close()


def to(queue: str, body: str | bytes = "x", **properties: object) -> Message:
    return Message("", queue, body, properties)


def bodies(store: Store, queue: str = "q", limit: int = 100) -> list[bytes | str]:
    return [delivery.message.body for delivery in store.claim([queue], limit)]


def test_a_message_comes_out_as_it_went_in(store: Store) -> None:
    sent = Message("", "q", b"\x00\xff", {"headers": {"id": "1", "raw": b"\x01"}, "content_type": "x", "priority": 2})
    store.publish([sent, to("q", "text")])
    first, second = store.claim(["q"], 2)
    assert first.message == sent
    assert second.message.body == "text"
    assert not first.redelivered


def test_values_that_json_lacks_are_written_plainly(store: Store) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    store.publish([to("q", headers={"eta": moment})])
    assert store.claim(["q"], 1)[0].message.properties["headers"] == {"eta": moment.isoformat()}


def test_publishing_tells_how_many_queues_each_message_reached(store: Store) -> None:
    store.declare_queue("p")
    store.declare_exchange("all", "fanout")
    store.bind("p", "all")
    store.bind("q", "all", "ignored")
    assert store.publish([Message("all", "", "x"), to("nobody"), to("q"), Message("missing", "q", "x")]) == [2, 0, 1, 0]


def test_direct_and_topic_exchanges_route_by_key_and_once_per_queue(store: Store) -> None:
    store.declare_exchange("d", "direct")
    store.declare_exchange("t", "topic")
    store.bind("q", "d", "red")
    store.bind("q", "t", "task.*")
    store.bind("q", "t", "#")
    assert store.publish([Message("d", "red", "1"), Message("d", "blue", "2"), Message("t", "task.x", "3")]) == [
        1,
        0,
        1,
    ]
    assert bodies(store) == ["1", "3"]


def test_bindings_are_seen_by_other_stores_at_once(store: Store, other: Store) -> None:
    store.declare_exchange("d", "direct")
    assert other.publish([Message("d", "k", "x")]) == [0]
    store.bind("q", "d", "k")
    assert other.publish([Message("d", "k", "x")]) == [1]
    store.unbind("q", "d", "k")
    assert other.publish([Message("d", "k", "x")]) == [0]


def test_higher_priorities_come_first_then_older_messages(store: Store) -> None:
    store.publish([to("q", "a"), to("q", "b", priority=9), to("q", "c", priority=5), to("q", "d", priority=9)])
    store.publish([to("q", "over", priority=99), to("q", "bad", priority="high")])
    assert bodies(store) == ["b", "d", "over", "c", "a", "bad"]


def test_an_unacknowledged_message_is_nobody_elses(store: Store, other: Store) -> None:
    store.publish([to("q", "a"), to("q", "b")])
    assert bodies(store, limit=1) == ["a"]
    assert bodies(other) == ["b"]


def test_acknowledging_and_claiming_travel_together(store: Store, other: Store) -> None:
    store.publish([to("q", "a"), to("q", "b")])
    (first,) = store.claim(["q"], 1)
    (second,) = store.claim(["q"], 1, ack=[first.tag])
    assert second.message.body == "b"
    store.close()
    assert bodies(other) == ["b"]


def test_a_rejected_message_goes_back_to_its_old_place_and_is_marked(store: Store) -> None:
    store.publish([to("q", "a"), to("q", "b"), to("q", "c")])
    first, second, _ = store.claim(["q"], 3)
    store.reject([first.tag], requeue=True)
    store.reject([second.tag], requeue=False)
    store.publish([to("q", "d")])
    again = store.claim(["q"], 5)
    assert [(d.message.body, d.redelivered, d.deliveries) for d in again] == [("a", True, 2), ("d", False, 1)]


def test_settling_what_is_not_ours_does_nothing(store: Store, other: Store) -> None:
    store.publish([to("q", "a")])
    (delivery,) = store.claim(["q"], 1)
    other.consume("q")
    other.ack([delivery.tag])
    other.reject([delivery.tag], requeue=True)
    assert bodies(other) == []
    store.reject([delivery.tag], requeue=True)
    assert bodies(other) == ["a"]


def test_closing_gives_back_and_ends_what_was_the_sessions_own(store: Store, other: Store) -> None:
    store.publish([to("q", "a")])
    store.consume("q")
    store.declare_queue("mine", exclusive=True)
    store.declare_queue("fleeting", auto_delete=True)
    store.consume("fleeting")
    assert bodies(store) == ["a"]
    store.close()
    assert other.queues() == [QueueDepth("q", 1, 0)]
    assert bodies(other) == ["a"]


def test_claiming_from_several_queues_starves_none(store: Store) -> None:
    store.declare_queue("p")
    store.publish([to("q", "q")] * 50 + [to("p", "p")])
    taken = [d for _ in range(4) for d in store.claim(["q", "p"], 5)]
    assert "p" in [d.message.body for d in taken]


def test_a_turn_serves_each_claim_apart(store: Store) -> None:
    store.declare_queue("p")
    store.publish([to("q", "q"), to("p", "p")])
    ours, theirs, nothing = store.turn([], [Claim(("q",), 5), Claim(("p",), 5, no_ack=True), Claim(("q",), 0)])
    assert [d.message.body for d in ours] == ["q"]
    assert [d.message.body for d in theirs] == ["p"]
    assert nothing == []
    store.close()


def test_claimed_without_acknowledgement_means_gone(store: Store, other: Store) -> None:
    store.publish([to("q")])
    (delivery,) = store.claim(["q"], 1, no_ack=True)
    assert (delivery.deliveries, delivery.redelivered) == (1, False)
    store.close()
    assert other.depth("q") == QueueDepth("q", 0, 0)


def test_depth_counts_ready_messages_and_consumers(store: Store, other: Store) -> None:
    store.publish([to("q")] * 3)
    tag = store.consume("q")
    other.consume("q")
    store.claim(["q"], 1)
    assert store.depth("q") == QueueDepth("q", 2, 2)
    store.cancel(tag)
    assert store.depth("q") == QueueDepth("q", 2, 1)
    assert store.depth("missing") is None


def test_purging_leaves_what_is_being_worked_on(store: Store) -> None:
    store.publish([to("q")] * 3)
    (held,) = store.claim(["q"], 1)
    assert store.purge("q") == 2
    store.reject([held.tag], requeue=True)
    assert store.depth("q") == QueueDepth("q", 1, 0)
    with pytest.raises(QueueNotFound):
        store.purge("missing")


def test_a_bounded_queue_drops_its_oldest_and_counts_them(store: Store) -> None:
    store.declare_queue("few", arguments={"x-max-length": 2})
    store.publish([to("few", str(n)) for n in range(4)])
    store.publish([to("few", "4")])
    assert store.depth("few") == QueueDepth("few", 2, 0, dropped=3)
    assert bodies(store, "few") == ["3", "4"]


def test_expired_messages_are_neither_delivered_nor_counted(store: Store) -> None:
    store.declare_queue("brief", arguments={"x-message-ttl": 20})
    store.publish([to("brief", "1"), to("q", "2", expiration="20"), to("q", "3")])
    time.sleep(0.03)
    assert bodies(store, "brief") == []
    assert bodies(store) == ["3"]
    assert store.depth("brief") == QueueDepth("brief", 0, 0)


def test_a_queue_with_an_expiry_goes_when_unused(store: Store) -> None:
    store.declare_queue("used", arguments={"x-expires": 20})
    store.declare_queue("unused", arguments={"x-expires": 20})
    store.consume("used")
    time.sleep(0.03)
    store._cleaned_at = 0.0
    store.claim(["q"], 1)
    assert [depth.name for depth in store.queues()] == ["q", "used"]


def test_an_auto_delete_queue_goes_with_its_last_consumer(store: Store, other: Store) -> None:
    store.declare_queue("fleeting", auto_delete=True)
    store.declare_exchange("f", "fanout", auto_delete=True)
    store.bind("fleeting", "f")
    first, second = store.consume("fleeting"), other.consume("fleeting")
    store.cancel(first)
    assert store.depth("fleeting") is not None
    other.cancel(second)
    assert store.depth("fleeting") is None
    assert not store.exchange_exists("f")


def test_an_exclusive_queue_is_closed_to_others(store: Store, other: Store) -> None:
    store.declare_queue("mine", exclusive=True)
    store.declare_queue("mine", exclusive=True)
    for attempt in (other.declare_queue, other.consume):
        with pytest.raises(QueueLocked):
            attempt("mine")
    assert other.publish([to("mine")]) == [1]


def test_an_exchange_keeps_its_type(store: Store) -> None:
    store.declare_exchange("e", "topic")
    store.declare_exchange("e", "topic")
    with pytest.raises(ExchangeMismatch):
        store.declare_exchange("e", "fanout")


def test_deleting_a_queue_takes_its_messages_and_bindings(store: Store) -> None:
    store.bind("q", "amq.direct", "k")
    store.publish([to("q")])
    assert store.delete_queue("q", if_empty=True) == 0
    assert store.delete_queue("q") == 1
    assert store.publish([Message("amq.direct", "k", "x")]) == [0]
    assert store.delete_queue("q") == 0
    with pytest.raises(QueueNotFound):
        store.consume("q")


def test_claiming_uses_the_index_at_any_backlog(store: Store) -> None:
    from dure.broker import deliveries

    plan = store._database.read("EXPLAIN QUERY PLAN " + deliveries._CLAIM, (1, 1, 10))
    text = " ".join(row[3] for row in plan)
    assert "messages_ready" in text
    assert "TEMP B-TREE" not in text
    assert "SCAN" not in text
