"""The broker's file between real processes: killed, stopped, waking one another, and kept waiting."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dure.broker.store import Message, QueueDepth, Store

SOURCE = str(Path(__file__).parents[2] / "src")
PRELUDE = """
import select, sys, time
from dure.broker.store import Message, Store
store = Store(sys.argv[1])
def say(*words):
    print(*words, flush=True)
"""


class Script:
    """A Python process with a store of its own, which says when it is where the test wants it."""

    def __init__(self, path: Path, code: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(path), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": SOURCE},
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def rest(self) -> list[str]:
        return self.process.communicate(timeout=20)[0].split()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


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
def script(path: Path) -> Iterator[Callable[..., Script]]:
    started: list[Script] = []

    def start(code: str, *arguments: str) -> Script:
        started.append(Script(path, code, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.end()


def claimed_within(store: Store, seconds: float, queue: str = "q") -> list[tuple[bytes | str, bool]]:
    """What an idle consumer of ours gets, woken or looking once in a while, as the transport does."""
    import select

    deadline = time.monotonic() + seconds
    store.consume(queue)
    while time.monotonic() < deadline:
        store.drain_wakes()
        taken = store.claim([queue], 100)
        if taken:
            return [(d.message.body, d.redelivered) for d in taken]
        select.select([store.fileno()], [], [], 0.25)
    return []


HOLD = """
    store.consume("q")
    say(*[d.message.body for d in store.claim(["q"], 10)])
    time.sleep(60)
"""


def test_a_killed_consumers_messages_are_back_within_five_seconds(store: Store, script: Callable[..., Script]) -> None:
    store.publish([Message("", "q", "a"), Message("", "q", "b")])
    consumer = script(HOLD)
    assert consumer.line() == "a b"
    assert store.depth("q") == QueueDepth("q", 0, 1)
    consumer.send(signal.SIGKILL)
    assert claimed_within(store, 5) == [("a", True), ("b", True)]
    assert store.depth("q") == QueueDepth("q", 0, 1)  # only ourselves


def test_a_message_that_its_consumers_do_not_survive_becomes_a_dead_letter(
    store: Store, script: Callable[..., Script]
) -> None:
    store.declare_exchange("dead", "fanout")
    store.declare_queue("dead")
    store.bind("dead", "dead")
    store.declare_queue("q", arguments={"x-dead-letter-exchange": "dead", "x-delivery-limit": 1})
    store.publish([Message("", "q", "poison")])
    for _ in range(2):
        consumer = script(HOLD)
        assert consumer.line() == "poison"
        consumer.send(signal.SIGKILL)
        consumer.process.wait()
    assert claimed_within(store, 5, "dead") == [("poison", False)]
    assert store.depth("q") == QueueDepth("q", 0, 0)


def test_a_stopped_consumer_is_not_robbed(store: Store, script: Callable[..., Script]) -> None:
    store.publish([Message("", "q", "a")])
    consumer = script(HOLD)
    assert consumer.line() == "a"
    consumer.send(signal.SIGSTOP)
    assert claimed_within(store, 2.5) == []
    consumer.send(signal.SIGKILL)
    assert claimed_within(store, 5) == [("a", True)]


def test_a_living_child_of_a_killed_consumer_does_not_keep_its_messages(
    store: Store, script: Callable[..., Script]
) -> None:
    store.publish([Message("", "q", "a")])
    consumer = script(
        """
        import os
        taken = store.claim(["q"], 10)
        if os.fork() == 0:
            say(os.getpid())
            time.sleep(60)
        time.sleep(60)
        """
    )
    child = int(consumer.line())
    try:
        consumer.send(signal.SIGKILL)
        assert claimed_within(store, 5) == [("a", True)]
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_killed_owners_exclusive_queue_is_free_at_once(store: Store, script: Callable[..., Script]) -> None:
    owner = script(
        """
        store.declare_queue("pidbox", exclusive=True)
        say("declared")
        time.sleep(60)
        """
    )
    assert owner.line() == "declared"
    store.publish([Message("", "pidbox", "for the dead")])
    owner.send(signal.SIGKILL)
    owner.process.wait()
    assert store.declare_queue("pidbox", exclusive=True).messages == 0


def test_processes_share_one_file_without_loss_or_repetition(store: Store, script: Callable[..., Script]) -> None:
    publish = """
        for n in range(300):
            store.publish([Message("", "q", f"{sys.argv[2]}/{n}", {"priority": n % 3})])
    """
    consume = """
        store.consume("q")
        while True:
            store.drain_wakes()
            taken = store.claim(["q"], 7)
            for delivery in taken:
                if delivery.message.body != "end":
                    say(delivery.message.body)
            ends = [d.tag for d in taken if d.message.body == "end"]
            store.reject(ends[1:], requeue=True)  # one end for each consumer
            store.ack([d.tag for d in taken if d.tag not in ends[1:]])
            if ends:
                break
            if not taken:
                select.select([store.fileno()], [], [], 0.25)
        store.close()
    """
    consumers = [script(consume) for _ in range(3)]
    publishers = [script(publish, str(n)) for n in range(3)]
    for publisher in publishers:
        assert publisher.process.wait(timeout=20) == 0
    for _ in consumers:
        store.publish([Message("", "q", "end")])
    taken = [word for consumer in consumers for word in consumer.rest()]
    assert sorted(taken) == sorted(f"{name}/{n}" for name in range(3) for n in range(300))
    assert store.depth("q") == QueueDepth("q", 0, 0)


def test_an_idle_consumer_in_another_process_wakes_within_ten_milliseconds(
    store: Store, script: Callable[..., Script]
) -> None:
    consumer = script(
        """
        store.consume("q")
        say("ready")
        while True:
            select.select([store.fileno()], [], [], 5)
            store.drain_wakes()
            for delivery in store.claim(["q"], 1):
                woken = time.time() - float(delivery.message.body)
                store.ack([delivery.tag])
                say(woken)
        """
    )
    assert consumer.line() == "ready"
    latencies = []
    for _ in range(400):  # a fraction of a second: twenty are over in one moment in which the machine does other things
        store.publish([Message("", "q", str(time.time()))])
        latencies.append(float(consumer.line()))
    assert sorted(latencies)[len(latencies) // 2] < 0.010


def test_a_file_locked_for_seconds_loses_nothing(path: Path, store: Store) -> None:
    store.publish([Message("", "q", "before")])
    (held,) = store.claim(["q"], 1)
    blocker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN IMMEDIATE")
    letting_go = threading.Timer(3, lambda: blocker.execute("COMMIT"))
    began = time.monotonic()  # before the three seconds do
    letting_go.start()
    assert store.publish([Message("", "q", "during")]) == [1]
    assert time.monotonic() - began > 2.5
    letting_go.join()  # it may still be in its statement, and the connection is closed below
    store.ack([held.tag])
    assert [d.message.body for d in store.claim(["q"], 10)] == ["during"]
    blocker.close()


def test_a_publish_killed_half_way_is_all_or_nothing(store: Store, script: Callable[..., Script]) -> None:
    publisher = script(
        """
        batch = [Message("", "q", "x" * 200)] * 50
        store.publish(batch)
        say("going")
        while True:
            store.publish(batch)
        """
    )
    assert publisher.line() == "going"
    time.sleep(0.2)
    publisher.send(signal.SIGKILL)
    publisher.process.wait()
    depth = store.depth("q")
    assert depth is not None
    assert depth.messages > 0
    assert depth.messages % 50 == 0
    assert len(store.claim(["q"], depth.messages + 1)) == depth.messages


def test_many_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    code = 'store.declare_queue("q"); store.consume("q"); store.publish([Message("", "q", "x")]); say("ok")'
    scripts = [Script(tmp_path / "new.db", code) for _ in range(6)]
    try:
        assert [each.rest() for each in scripts] == [["ok"]] * 6
    finally:
        for each in scripts:
            each.end()
