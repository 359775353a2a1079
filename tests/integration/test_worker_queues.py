"""Queues: those that exist are used as they are, new ones are quorum queues; everything is announced."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Queue

from dure.job import State
from tests.integration.worker_harness import Client, app_name, worker
from tests.services import RabbitMQ


@pytest.fixture
def client(rabbitmq_url: str) -> Iterator[Client]:
    client = Client(rabbitmq_url)
    yield client
    client.close()


def kinds(rabbitmq: RabbitMQ, client: Client) -> dict[str, str]:
    queues = json.loads(rabbitmq.api("GET", f"queues/{client.url.rpartition('/')[2]}?disable_stats=true"))
    return {queue["name"]: queue["arguments"].get("x-queue-type", "classic") for queue in queues}


def declare(client: Client, name: str, **arguments: Any) -> None:
    exchange = Exchange(name, type="direct")
    Queue(name, exchange, name, queue_arguments=arguments)(client.connection.channel()).declare()


def test_new_queues_are_quorum_queues(rabbitmq: RabbitMQ, client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-Q", "first,second"):
        for queue in ("first", "second"):
            assert client.end(client.submit("add", 1, queue=queue)).result == 3
        found = kinds(rabbitmq, client)
    assert (found["first"], found["second"], found["dure.events"]) == ("quorum", "quorum", "quorum")
    assert not [name for name in found if name.startswith("celery_delayed")]


def test_the_queue_that_the_application_defines_stays_one_that_its_producers_can_declare(
    rabbitmq: RabbitMQ, client: Client, tmp_path: Path
) -> None:
    with worker(client, tmp_path):
        producer = Celery(broker=client.url)
        producer.conf.broker_transport_options = {"confirm_publish": True}
        assert client.end(producer.send_task(f"{app_name()}.add", (1,)).id).result == 3
        assert kinds(rabbitmq, client)["celery"] == "classic"


@pytest.mark.parametrize(
    "arguments", [{}, {"x-queue-type": "quorum"}, {"x-queue-type": "quorum", "x-delivery-limit": 5}]
)
def test_a_queue_that_exists_is_used_as_it_is(client: Client, tmp_path: Path, arguments: dict[str, Any]) -> None:
    declare(client, "old", **arguments)
    with worker(client, tmp_path, "-Q", "old"):
        assert client.end(client.submit("add", 1, queue="old")).result == 3
        assert client.end(client.submit("retry_twice", queue="old")).attempt == 3
        assert client.end(client.submit("attempts", 1, queue="old", retries=1)).attempt == 2


@pytest.mark.parametrize("arguments", [{}, {"x-queue-type": "quorum"}])
@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_a_task_calls_another_on_a_queue_the_worker_does_not_consume(
    client: Client, tmp_path: Path, arguments: dict[str, Any], pool: str
) -> None:
    declare(client, "elsewhere", **arguments)
    with worker(client, tmp_path, "-Q", "here", "-P", pool, "-c", "1"):
        assert client.end(client.submit("call", "elsewhere", queue="here")).state is State.SUCCESS
    assert client.depth("elsewhere") == 1


@pytest.mark.parametrize(("first", "added"), [("celery", "classic"), ("work", "quorum")])
def test_a_queue_added_by_remote_control_is_of_the_kind_that_the_worker_can_consume(
    rabbitmq: RabbitMQ, client: Client, tmp_path: Path, first: str, added: str
) -> None:
    with worker(client, tmp_path, "-Q", first) as running:
        client.control("add_consumer", queue="added")
        client.until(lambda: b"Started consuming from added" in running.log.read_bytes())
        assert client.end(client.submit("add", 1, queue="added")).result == 3
        assert kinds(rabbitmq, client)["added"] == added


def test_the_worker_announces_at_its_start_and_when_asked(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-c", "3", "-Q", "celery,other", "-n", "named@%h"):
        first = client.until(client.announcements)[0]
        assert first.node.hostname.startswith("named@")
        assert (first.node.pool, first.node.concurrency, first.node.queues) == (
            "asyncio",
            3,
            ("celery", "other"),
        )
        assert first.node.software
        assert first.node.software.startswith("dure ")
        add = next(task for task in first.tasks if task.name == f"{app_name()}.add")
        assert (add.doc, add.queue, add.positional) == ("Add two numbers.", "celery", ("x", "y"))
        assert add.arguments
        assert add.arguments["required"] == ["x"]
        assert not [task for task in first.tasks if task.name.startswith("celery.")]
        client.control("dure_announce")
        client.until(lambda: len(client.announcements()) == 2)


def test_a_stock_worker_beside_ours_is_not_disturbed(client: Client, tmp_path: Path) -> None:
    declare(client, "old")
    with (
        worker(client, tmp_path, "-Q", "new", "-n", "ours@%h"),
        worker(client, tmp_path, "-Q", "old", "-n", "stock@%h", "-E", "-c", "1", stock=True) as stock,
    ):
        end = client.end(client.submit("add", 1, queue="old"))
        client.control("dure_announce")
        assert client.end(client.submit("add", 1, queue="new")).attempt == 1
        assert stock.stop() == 0
    assert (end.attempt, end.has_result, end.result_repr) == (0, False, "3")
    assert {a.node.hostname.partition("@")[0] for a in client.announcements()} == {"ours"}


def test_waiting_retries_take_no_slot(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-c", "1"):
        waiting = [client.submit("attempts", 9, retries=5) for _ in range(5)]
        for job in waiting:
            client.event(job, State.RETRY, attempt=4)
        submitted = time.time()
        # The last of them came before it, and waits for 4 s or more.
        assert client.end(client.submit("noop")).at - submitted < 3


def test_many_jobs_are_not_held_up_by_their_acknowledgements(client: Client, tmp_path: Path) -> None:
    with worker(client, tmp_path, "-c", "1", "-Q", "celery"):
        client.end(client.submit("noop"))
        jobs = [client.submit("noop") for _ in range(300)]
        ends = [client.end(job) for job in jobs]
    # One at a time, each behind the acknowledgement of the one before: a loop that is not woken takes a second each.
    assert max(end.at for end in ends) - min(end.at for end in ends) < 15
