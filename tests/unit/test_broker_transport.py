from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue
from kombu.exceptions import OperationalError
from kombu.pidbox import Mailbox

import dure.broker  # noqa: F401
from dure.broker import transport
from dure.broker.store import QueueDepth, Store
from dure.errors import ConfigurationError

DEADLINE = 20.0
TASKS = Queue("tasks", Exchange("tasks", "topic"), routing_key="task.#")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"dure://{tmp_path}/broker.db"


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with Connection(url) as connection:
        yield connection


@pytest.fixture
def other(url: str) -> Iterator[Connection]:
    with Connection(url) as connection:
        yield connection


def publish(connection: Connection, *bodies: object, queue: Queue = TASKS, **options: Any) -> None:
    producer = connection.Producer()
    for body in bodies:
        producer.publish(body, exchange=queue.exchange, routing_key="task.x", declare=[queue], **options)


def drain(connection: Connection, count: int) -> None:
    for _ in range(count):
        connection.drain_events(timeout=DEADLINE)


def silent(connection: Connection, timeout: float = 0.05) -> bool:
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=timeout)
    return True


def depth(connection: Connection, queue: str = "tasks") -> tuple[int, int]:
    ok = connection.default_channel.queue_declare(queue, passive=True)
    return ok.message_count, ok.consumer_count


class Received:
    def __init__(self, ack: bool = True) -> None:
        self.bodies: list[Any] = []
        self.messages: list[Any] = []
        self.ack = ack

    def __call__(self, body: Any, message: Any) -> None:
        self.bodies.append(body)
        self.messages.append(message)
        if self.ack:
            message.ack()


def test_a_message_keeps_its_properties_and_says_where_it_came_from(connection: Connection) -> None:
    received = Received()
    publish(connection, {"a": 1}, headers={"id": "7"}, correlation_id="7", reply_to="r", priority=3, compression="zlib")
    with connection.Consumer([TASKS], callbacks=[received]):
        drain(connection, 1)
    (message,) = received.messages
    assert received.bodies == [{"a": 1}]
    assert message.headers["id"] == "7"
    assert message.content_type == "application/json"
    assert {k: message.properties[k] for k in ("correlation_id", "reply_to", "priority", "delivery_mode")} == {
        "correlation_id": "7",
        "reply_to": "r",
        "priority": 3,
        "delivery_mode": 2,
    }
    assert message.delivery_info["routing_key"] == "task.x"
    assert message.delivery_info["exchange"] == "tasks"
    assert message.delivery_info["redelivered"] is False


def test_one_event_is_one_message(connection: Connection) -> None:
    received = Received()
    publish(connection, 1, 2, 3)
    with connection.Consumer([TASKS], callbacks=[received]):
        drain(connection, 2)
        assert received.bodies == [1, 2]


def test_the_prefetch_limits_what_is_unacknowledged(connection: Connection, other: Connection) -> None:
    received = Received(ack=False)
    publish(connection, 1, 2, 3)
    with connection.Consumer([TASKS], callbacks=[received], prefetch_count=2):
        drain(connection, 2)
        assert silent(connection)
        assert depth(other) == (1, 1)
        received.messages[0].ack()
        drain(connection, 1)
        assert received.bodies == [1, 2, 3]


def test_an_acknowledgement_from_another_thread_lets_the_waiting_one_go_on(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_POLL_EVERY", DEADLINE)
    received = Received(ack=False)
    publish(connection, 1, 2)
    with connection.Consumer([TASKS], callbacks=[received], prefetch_count=1):
        drain(connection, 1)
        acked: list[float] = []

        def ack() -> None:
            acked.append(time.monotonic())
            received.messages[0].ack()

        threading.Timer(0.1, ack).start()
        drain(connection, 1)
        assert time.monotonic() - acked[0] < DEADLINE / 2  # long before the next poll
    assert received.bodies == [1, 2]


def test_acknowledgements_reach_the_file_though_the_consumer_stays_away(
    connection: Connection, other: Connection
) -> None:
    received = Received()
    publish(connection, 1, 2)
    with connection.Consumer([TASKS], callbacks=[received]):
        drain(connection, 1)  # the second is claimed, and nobody drains any more
        store = connection.transport.store
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline and store._database.read("SELECT count(*) FROM messages")[0][0] > 1:
            time.sleep(0.005)
        assert store._database.read("SELECT count(*) FROM messages") == [(1,)]


def test_rejected_messages_come_again_or_not(connection: Connection) -> None:
    received = Received(ack=False)
    publish(connection, 1, 2)
    with connection.Consumer([TASKS], callbacks=[received], prefetch_count=1):
        drain(connection, 1)
        received.messages[0].requeue()
        drain(connection, 1)
        received.messages[1].reject()
        drain(connection, 1)
    assert received.bodies == [1, 1, 2]
    assert received.messages[1].delivery_info["redelivered"] is True


def test_acknowledging_several_at_once_settles_up_to_the_tag(connection: Connection, url: str) -> None:
    received = Received(ack=False)
    publish(connection, 1, 2, 3)
    with connection.Consumer([TASKS], callbacks=[received]):
        drain(connection, 3)
        received.messages[1].ack(multiple=True)
    connection.release()
    with Connection(url) as again:
        assert depth(again) == (1, 0)


def test_recovering_delivers_again(connection: Connection) -> None:
    received = Received(ack=False)
    publish(connection, 1, 2)
    with connection.Consumer([TASKS], callbacks=[received]) as consumer:
        drain(connection, 2)
        consumer.recover(requeue=True)
        drain(connection, 2)
    assert received.bodies == [1, 2, 1, 2]


def test_cancelling_returns_what_was_claimed_and_not_seen(connection: Connection, other: Connection) -> None:
    received = Received()
    publish(connection, 1, 2, 3)
    with connection.Consumer([TASKS], callbacks=[received]):
        drain(connection, 1)
    assert depth(other) == (2, 0)


def test_a_closed_connection_gives_back(connection: Connection, other: Connection) -> None:
    publish(other, 1, 2)
    received = Received(ack=False)
    connection.Consumer([TASKS], callbacks=[received]).consume()
    drain(connection, 1)
    connection.release()
    assert depth(other) == (2, 0)


def test_a_forgotten_connection_gives_back_too(url: str, other: Connection) -> None:
    publish(other, 1)
    connection = Connection(url)
    consumer = connection.Consumer([TASKS], callbacks=[Received(ack=False)])
    consumer.consume()
    connection.drain_events(timeout=DEADLINE)
    del connection, consumer
    gc.collect()
    assert depth(other) == (1, 0)


def test_messages_can_be_fetched_one_by_one(connection: Connection) -> None:
    publish(connection, 1)
    queue = TASKS(connection.default_channel)
    message = queue.get()
    assert message.payload == 1
    assert queue.get() is None
    message.requeue()
    again = queue.get(no_ack=True)
    assert again.delivery_info["redelivered"] is True
    assert depth(connection) == (0, 0)


def test_two_consumers_of_one_channel_take_turns(connection: Connection) -> None:
    first, second = Received(), Received()
    publish(connection, 1, 2, 3, 4)
    channel = connection.channel()
    with Consumer(channel, [TASKS], callbacks=[first]), Consumer(channel, [TASKS], callbacks=[second]):
        drain(connection, 4)
    assert sorted(first.bodies + second.bodies) == [1, 2, 3, 4]
    assert len(first.bodies) == len(second.bodies) == 2


def test_a_missing_queue_is_amqps_not_found(connection: Connection) -> None:
    with pytest.raises(connection.channel_errors) as caught:
        connection.default_channel.queue_declare("missing", passive=True)
    assert caught.value.code == 404
    with pytest.raises(connection.channel_errors):
        connection.default_channel.exchange_declare("missing", passive=True)


def test_an_exclusive_queue_is_amqps_resource_locked_to_others(connection: Connection, other: Connection) -> None:
    connection.default_channel.queue_declare("mine", exclusive=True)
    with pytest.raises(other.channel_errors) as caught:
        other.default_channel.queue_declare("mine", exclusive=True)
    assert caught.value.code == 405


def test_a_mandatory_message_that_reaches_no_queue_is_returned(connection: Connection) -> None:
    producer = connection.Producer()
    with pytest.raises(connection.channel_errors, match="NO_ROUTE"):
        producer.publish("x", exchange="", routing_key="nowhere", mandatory=True)
    returned: list[object] = []
    telling = connection.Producer(on_return=lambda *answer: returned.append(answer[2]))
    telling.publish("x", exchange="", routing_key="nowhere", mandatory=True)
    assert returned == ["nowhere"]


def test_queue_arguments_of_kombu_are_honoured(connection: Connection) -> None:
    few = Queue("few", Exchange("few", "topic"), routing_key="#", max_length=2)
    publish(connection, 1, 2, 3, queue=few)
    assert depth(connection, "few") == (2, 0)
    assert few(connection.default_channel).purge() == 2


def test_remote_control_goes_out_to_all_and_answers_come_back(connection: Connection, other: Connection) -> None:
    mailbox = Mailbox("test", type="fanout")
    node = mailbox(connection).Node("node@here", channel=connection.channel())
    node.handler(lambda state, **_: {"pong": True}).__name__ = "ping"
    node.handlers["ping"] = lambda state, **_: {"pong": True}
    node.listen()
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                connection.drain_events(timeout=0.1)
            except TimeoutError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        replies = mailbox(other).multi_call("ping", timeout=DEADLINE, limit=1)
    finally:
        stop.set()
        thread.join()
    assert replies == [{"node@here": {"pong": True}}]


def test_an_unusable_file_is_a_recoverable_connection_error(connection: Connection) -> None:
    publish(connection, 1)
    connection.transport.store._database._open().execute("PRAGMA query_only = 1")
    with pytest.raises(OperationalError):
        connection.Producer().publish("x", routing_key="tasks", retry=True, retry_policy={"max_retries": 0})
    with pytest.raises(connection.connection_errors):
        connection.Producer().publish("x", routing_key="tasks")


def test_a_url_without_a_file_says_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match="dure:///absolute"):
        Connection("dure://").connect()


def test_a_full_prefetch_still_lets_remote_control_through(connection: Connection) -> None:
    tasks, control = Received(ack=False), Received()
    publish(connection, 1, 2)
    fan = Queue("fan", Exchange("fan", "fanout"), exclusive=True, auto_delete=True)
    with (
        Consumer(connection.channel(), [TASKS], callbacks=[tasks], prefetch_count=1),
        Consumer(connection.channel(), [fan], callbacks=[control], no_ack=True),
    ):
        drain(connection, 1)
        connection.Producer().publish("stop", exchange=fan.exchange, declare=[fan])
        drain(connection, 1)
    assert (tasks.bodies, control.bodies) == ([1], ["stop"])


def test_the_store_works_where_kombu_is_not_installed(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['kombu'] = sys.modules['celery'] = None\n"
        "from dure.broker.store import Message, Store\n"
        "s = Store(sys.argv[1]); s.declare_queue('q'); print(s.publish([Message('', 'q', 'x')])); s.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b.db")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[1]"


def test_what_the_store_publishes_kombu_consumes(connection: Connection, tmp_path: Path) -> None:
    from dure.broker.store import Message

    store = Store(tmp_path / "broker.db")
    store.declare_queue("tasks")
    store.publish(
        [Message("", "tasks", b'{"a": 1}', {"content_type": "application/json", "content_encoding": "utf-8"})]
    )
    received = Received()
    with connection.Consumer([Queue("tasks")], callbacks=[received]):
        drain(connection, 1)
    assert received.bodies == [{"a": 1}]
    connection.release()
    assert store.depth("tasks") == QueueDepth("tasks", 0, 0)
    store.close()


def test_acknowledging_on_a_closed_connection_is_an_error_that_celery_knows(connection: Connection) -> None:
    received = Received(ack=False)
    publish(connection, 1)
    connection.Consumer([TASKS], callbacks=[received]).consume()
    drain(connection, 1)
    errors = connection.connection_errors
    connection.release()
    with pytest.raises(errors):
        received.messages[0].ack()
