"""The store when something wakes it, keeps it waiting, forks it or takes its file away."""

from __future__ import annotations

import os
import select
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dure.broker import liveness
from dure.broker.errors import BrokerUnavailable
from dure.broker.store import Message, QueueDepth, Store


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


def readable(store: Store, within: float = 20.0) -> bool:
    return bool(select.select([store.fileno()], [], [], within)[0])


def test_a_publish_makes_the_consumers_socket_readable(store: Store, other: Store) -> None:
    store.consume("q")
    assert not readable(store, within=0)
    other.publish([to("q")])
    assert readable(store)
    store.drain_wakes()
    assert not readable(store, within=0)


def test_giving_back_wakes_the_other_consumers(store: Store, other: Store) -> None:
    store.publish([to("q")])
    (delivery,) = store.claim(["q"], 1)
    other.consume("q")
    store.reject([delivery.tag], requeue=True)
    assert readable(other)


def test_another_connections_commit_shows_as_a_change(store: Store, other: Store) -> None:
    store.changed()
    assert not store.changed()
    other.publish([to("q")])
    assert store.changed()
    assert not store.changed()


def test_a_file_locked_for_longer_than_we_wait_raises_and_publishes_nothing(path: Path, store: Store) -> None:
    impatient = Store(path, busy_timeout=0.05)
    impatient.queues()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(BrokerUnavailable, match="locked"):
        impatient.publish([to("q")])
    assert impatient.depth("q") == QueueDepth("q", 0, 0)  # reading goes on
    blocker.execute("ROLLBACK")
    assert impatient.publish([to("q")]) == [1]
    blocker.close()
    impatient.close()


def test_a_full_disk_raises_and_leaves_nothing_half_done(store: Store) -> None:
    store.declare_exchange("all", "fanout")
    store.declare_queue("p")
    for queue in ("p", "q"):
        store.bind(queue, "all")
    with store._database.write() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    store._database._open().execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(BrokerUnavailable, match="full"):
        store.publish([Message("all", "", "x" * 3000)] * 10)
    assert store.queues() == [QueueDepth("p", 0, 0), QueueDepth("q", 0, 0)]
    store._database._open().execute("PRAGMA max_page_count = 1000000")
    assert store.publish([Message("all", "", "x")]) == [2]


def test_a_read_only_file_raises_from_publish(store: Store) -> None:
    store._database._open().execute("PRAGMA query_only = 1")
    with pytest.raises(BrokerUnavailable, match="readonly"):
        store.publish([to("q")])


def test_a_path_that_cannot_be_a_database_raises(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, by far" * 100)
    for path in (tmp_path, tmp_path / "text"):
        store = Store(path)
        with pytest.raises(BrokerUnavailable):
            store.queues()


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(BrokerUnavailable, match="closed"):
        store.publish([to("q")])


def test_many_threads_lose_and_repeat_nothing(store: Store) -> None:
    taken: list[bytes | str] = []

    def publish(name: int) -> None:
        for n in range(50):
            store.publish([to("q", f"{name}/{n}")])

    def consume() -> None:
        deadline = time.monotonic() + 20
        while len(taken) < 200 and time.monotonic() < deadline:
            deliveries = store.claim(["q"], 3)
            taken.extend(d.message.body for d in deliveries)
            store.ack([d.tag for d in deliveries])

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
    threads += [threading.Thread(target=consume) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(f"{name}/{n}" for name in range(4) for n in range(50))


def test_a_forked_child_starts_anew_and_leaves_its_parents_session_alone(store: Store) -> None:
    store.publish([to("q", "parents")])
    tag = store.consume("q")
    (held,) = store.claim(["q"], 1)
    parents = store._database._connection
    child = os.fork()
    if child == 0:
        try:
            store.publish([to("q", "childs")])
            store.cancel(tag)
            store.ack([held.tag])
            ok = [d.message.body for d in store.claim(["q"], 5)] == ["childs"]
            ok = ok and store._database._connection is not parents
            store.close()
            os._exit(0 if ok else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.depth("q") == QueueDepth("q", 1, 1)
    assert bodies(store) == ["childs"]
    store.reject([held.tag], requeue=True)
    assert bodies(store) == ["parents"]


def test_a_session_whose_lock_file_was_removed_learns_that_it_is_over(store: Store, other: Store) -> None:
    store.publish([to("q", "a")])
    assert bodies(store) == ["a"]
    assert store._session is not None
    store._session.lock._path.unlink()
    liveness._own.discard(store._session.lock._path)  # as another process sees it
    assert bodies(other) == ["a"]
    store._cleaned_at = 0.0
    with pytest.raises(BrokerUnavailable, match="ended by another process"):
        store.claim(["q"], 1)
    other.close()
    assert bodies(store) == ["a"]  # in a session of its own again


def test_what_nobody_listens_to_does_not_wait_for_the_write_lock(path: Path, store: Store) -> None:
    assert store.publish([Message("celeryev", "task.sent", "x")]) == [0]
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert store.publish([Message("celeryev", "task.sent", "x")]) == [0]
    assert time.monotonic() - began < 10  # of the 30 that it waits for a lock
    blocker.close()
    store.declare_exchange("celeryev", "topic")
    store.bind("q", "celeryev", "#")
    assert store.publish([Message("celeryev", "task.sent", "x")]) == [1]
