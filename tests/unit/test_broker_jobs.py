"""What the store knows of jobs: which queue holds them, and which of them were cancelled."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection
from uuid_utils import uuid7

from dure.broker import deliveries, schema
from dure.broker.store import Message, QueueDepth, Store
from dure.revocation import KEPT, Revocation


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
    store.declare_queue("q")
    yield store
    store.close()


@pytest.fixture
def other(path: Path, clock: Clock) -> Iterator[Store]:
    other = Store(path, now=clock)
    yield other
    other.close()


def job(name: str, queue: str = "q") -> Message:
    return Message("", queue, "x", {"headers": {"id": name}, "correlation_id": "other"})


def test_a_queue_holds_the_jobs_that_are_ready_or_unacknowledged_in_it(store: Store, other: Store) -> None:
    store.declare_queue("p")
    store.publish([job("taken"), job("done"), job("ready"), job("elsewhere", "p"), Message("", "q", "x")])
    store.publish([Message("", "q", "x", {"correlation_id": "correlated"})])
    _, done = other.claim(["q"], 2)
    other.ack([done.tag])
    asked = ["taken", "done", "ready", "ready", "elsewhere", "correlated", "other", "never"]
    assert store.holds("q", asked) == {"taken", "ready", "correlated"}
    assert store.holds("missing", asked) == set()
    assert store.holds("q", []) == set()


def test_any_number_of_jobs_may_be_asked_after(store: Store) -> None:
    names = [str(n) for n in range(15_000)] + [str(uuid7()) for _ in range(15_000)]
    store.publish([job(name) for name in names[::2]])
    assert store.holds("q", iter(names)) == set(names[::2])


def test_asking_after_jobs_of_dure_uses_the_index(store: Store) -> None:
    sql = deliveries._HOLDING.format(schema.IN_ORDER, "?,?")
    text = " ".join(row[3] for row in store._database.read("EXPLAIN QUERY PLAN " + sql, (1, "a", "b")))
    assert "USING COVERING INDEX messages_by_job (job=? AND queue=?)" in text


def test_revocations_are_read_in_order_past_a_position(store: Store, other: Store, clock: Clock) -> None:
    assert other.revocations() == []
    store.revoke(["a", "b", "a"], terminate=False)
    clock.now += 1
    store.revoke(["c"], terminate=True)
    first, second, third = other.revocations()
    assert [entry for _, entry in (first, second, third)] == [
        Revocation(ids=("a",), at=clock.now - 1),
        Revocation(ids=("b",), at=clock.now - 1),
        Revocation(ids=("c",), at=clock.now, terminate=True),
    ]
    assert first[0] < second[0] < third[0]
    assert other.revocations(second[0]) == [third]
    assert other.revocations(third[0]) == []


def test_a_job_revoked_again_is_told_again_and_never_less_than_before(store: Store, clock: Clock) -> None:
    store.revoke(["a", "b"], terminate=False)
    for terminate in (True, False):
        (seen, _), *_ = reversed(store.revocations())
        clock.now += 1
        store.revoke(["a"], terminate=terminate)
        assert [entry for _, entry in store.revocations(seen)] == [Revocation(ids=("a",), terminate=True, at=clock.now)]
    assert [entry.ids for _, entry in store.revocations()] == [("b",), ("a",)]


def test_old_revocations_are_forgotten_and_their_positions_not_used_again(store: Store, clock: Clock) -> None:
    store.revoke(["old"], terminate=False)
    clock.now += KEPT - 1
    store.claim([], 1)
    ((position, _),) = store.revocations()
    clock.now += 1
    store._cleaned_at = 0.0
    store.claim([], 1)
    assert store.revocations() == []
    store.revoke(["new"], terminate=False)
    assert [entry.ids for _, entry in store.revocations(position)] == [("new",)]


def test_revocations_are_read_on_a_kombu_channel(store: Store, path: Path, clock: Clock) -> None:
    store.revoke(["a"], terminate=True)
    with Connection(f"dure://{path}") as connection:
        ((position, entry),) = connection.default_channel.revocations()
        assert entry == Revocation(ids=("a",), terminate=True, at=clock.now)
        assert connection.default_channel.revocations(position) == []


def test_a_file_of_the_first_version_is_opened_and_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    db = sqlite3.connect(path)
    db.executescript(schema._STEPS[0] + "PRAGMA user_version = 1;")
    db.execute("INSERT INTO queues (name, durable, auto_delete, used_at, ready) VALUES ('q', 1, 0, 0, 2)")
    columns = "queue, priority, exchange, routing_key, properties, body"
    for name in ("a", "b"):
        properties = f'{{"headers":{{"id":"{name}","raw":{{"$base64":"AA=="}}}}}}'
        db.execute(f"INSERT INTO messages ({columns}) VALUES (1, 0, '', 'q', ?, ?)", (properties, name))
    db.commit()
    db.close()
    for _ in range(2):  # the second time there is nothing to do
        store = Store(path)
        assert store.holds("q", ["a", "b", "c"]) == {"a", "b"}
        store.declare_queue("q", arguments={"x-delivery-limit": 0})
        store.close()
    store = Store(path)
    assert [d.message.body for d in store.claim(["q"], 5)] == ["a", "b"]
    store.revoke(["a"], terminate=False)
    store.close()
    store = Store(path)
    assert store.depth("q") == QueueDepth("q", 0, 0)
    store.close()
