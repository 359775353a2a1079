"""A worker tells its health, consumes again whatever befell its connection, and names who holds its loop up."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from amqp.exceptions import NotFound

from dure import probe
from dure.job import State
from tests.integration import aio_tasks, health_tasks
from tests.integration.each_broker import BROKERS, client_of
from tests.integration.worker_harness import DEADLINE, Client, worker
from tests.services import RabbitMQ
from tests.services.relay import Relay
from tests.services.service import free_port

TASKS = ("-I", f"{aio_tasks.MODULE},{health_tasks.MODULE}")
POOLS = pytest.mark.parametrize("pool", ["asyncio", "threads"])


client = pytest.fixture(params=BROKERS)(client_of)


@pytest.fixture
def production(rabbitmq_url: str) -> Iterator[Client]:
    client = Client(rabbitmq_url)
    yield client
    client.close()


def health(port: int, path: str = "/ready") -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def until_state(port: int, state: str, **more: Any) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        _, told = health(port)
        if told["state"] == state and all(told[name] == value for name, value in more.items()):
            return told
        time.sleep(0.02)
    raise AssertionError(f"the state is {told}")


def run(client: Client, path: Path, lines: int = 1) -> None:
    """A job, whose end is seen without an event."""
    client.submit("note", str(path))
    client.until(lambda: path.exists() and len(path.read_text().splitlines()) >= lines, "the job's end")


def is_there(client: Client, queue: str) -> bool:
    try:
        return client.depth(queue) >= 0
    except NotFound:
        return False


@pytest.mark.parametrize("pool", ["asyncio", "threads", "prefork", "solo"])
def test_health_is_told_over_http_from_connecting_to_draining(client: Client, tmp_path: Path, pool: str) -> None:
    port = free_port()
    argv = ("-P", pool, "-c", "1", *TASKS)
    with worker(client, tmp_path, *argv, DURE_WORKER_HEALTH=f"127.0.0.1:{port}") as running:
        told = until_state(port, "consuming", alive=True, consuming=True, running=0, slots=1)
        assert (told["pid"], told["loop_lag"] is not None) == (running.process.pid, pool == "asyncio")
        assert health(port)[0] == health(port, "/live")[0] == 200
        if pool == "solo":  # it runs its jobs where it looks for signals
            return
        job = client.submit("note_until", str(tmp_path / "runs"), str(tmp_path / "end"))
        client.event(job, State.STARTED)
        until_state(port, "busy", running=1, consuming=True)
        assert health(port)[0] == 200
        running.process.terminate()
        until_state(port, "draining", consuming=False, alive=True)
        assert (health(port)[0], health(port, "/live")[0]) == (503, 200)
        (tmp_path / "end").touch()
        assert running.process.wait(DEADLINE) == 0


def test_health_is_told_in_a_file_that_is_gone_after_the_end(client: Client, tmp_path: Path) -> None:
    place = tmp_path / "health" / "%n.json"
    with worker(client, tmp_path, "-n", "first@here", DURE_WORKER_HEALTH=str(place)) as running:
        path = tmp_path / "health" / "first.json"
        client.until(lambda: path.exists() and probe.ask(probe.File(str(path))).is_ready, "readiness")
        written = path.stat().st_mtime_ns
        client.until(lambda: path.stat().st_mtime_ns > written, "the next time it is written")
        assert running.stop() == 0
        assert [*path.parent.iterdir()] == []


@POOLS
def test_a_worker_consumes_again_after_its_broker_was_stopped(tmp_path: Path, pool: str) -> None:
    broker, port = RabbitMQ().start(), free_port()
    client = Client(broker.url)
    try:
        with worker(client, tmp_path, "-P", pool, *TASKS, DURE_WORKER_HEALTH=f"127.0.0.1:{port}") as running:
            run(client, tmp_path / "ran")
            broker.ctl("stop_app")
            told = until_state(port, "connecting", alive=True, consuming=False)
            assert (health(port)[0], health(port, "/live")[0]) == (503, 200)
            broker.ctl("start_app")
            client.reconnect()
            until_state(port, "consuming")
            run(client, tmp_path / "ran", 2)
            assert told["since"] < health(port)[1]["since"]
            assert running.stop() == 0
    finally:
        client.close()
        broker.close()


@POOLS
def test_a_worker_consumes_again_after_its_connection_was_closed(
    production: Client, rabbitmq: RabbitMQ, tmp_path: Path, pool: str
) -> None:
    vhost = production.url.rpartition("/")[2]
    with worker(production, tmp_path, "-P", pool, *TASKS):
        run(production, tmp_path / "ran")
        rabbitmq.ctl("close_all_connections", "--vhost", vhost, "test")
        production.reconnect()
        run(production, tmp_path / "ran", 2)


@POOLS
def test_a_worker_consumes_again_after_its_queue_was_deleted(production: Client, tmp_path: Path, pool: str) -> None:
    with worker(production, tmp_path, "-P", pool, *TASKS) as running:
        run(production, tmp_path / "ran")
        production.channel.queue_delete("celery")
        production.until(lambda: running.log.read_bytes().count(b"Connected to") == 2, "a new connection")
        production.until(lambda: is_there(production, "celery"), "the queue")
        run(production, tmp_path / "ran", 2)


@POOLS
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("cancel", "nothing is delivered from celery"),
        ("forget", "the broker cancelled the consumer of celery"),
        ("close", "the broker closed its channel: 404"),
    ],
)
def test_a_worker_whose_consumer_went_unnoticed_consumes_again_and_says_why(
    production: Client, tmp_path: Path, pool: str, how: str, why: str
) -> None:
    port = free_port()
    with worker(production, tmp_path, "-P", pool, *TASKS, DURE_WORKER_HEALTH=f"127.0.0.1:{port}") as running:
        run(production, tmp_path / "ran")
        until_state(port, "consuming", held=0)  # an acknowledgement on a broken channel would be noticed
        production.control("sabotage", how=how)
        production.until(lambda: why.encode() in running.log.read_bytes(), "the reason")
        run(production, tmp_path / "ran", 2)
        assert why in until_state(port, "consuming", restarts=1)["restarted_for"]
        assert running.stop() == 0


@POOLS
def test_a_worker_whose_connection_was_cut_without_a_word_consumes_again(
    production: Client, rabbitmq: RabbitMQ, tmp_path: Path, pool: str
) -> None:
    port = free_port()
    with Relay(rabbitmq.port) as line:
        url = production.url.replace(f":{rabbitmq.port}/", f":{line.port}/")
        env = {"TEST_BROKER": url, "DURE_WORKER_HEALTH": f"127.0.0.1:{port}"}
        with worker(production, tmp_path, "-P", pool, *TASKS, **env):
            run(production, tmp_path / "ran")
            began = health(port)[1]["since"]
            assert line.cut()
            production.until(lambda: health(port)[1]["restarted_for"] == "the broker does not answer", "a restart")
            production.until(lambda: health(port)[1]["since"] > began and health(port)[0] == 200, "a new connection")
            run(production, tmp_path / "ran", 2)


def test_an_idle_worker_is_left_alone(production: Client, tmp_path: Path) -> None:
    port = free_port()
    argv = ("-P", "asyncio", "-c", "1", *TASKS)
    with worker(production, tmp_path, *argv, DURE_WORKER_HEALTH=f"127.0.0.1:{port}"):
        job = production.submit("sleep", 6.0)  # has no room, and another waits
        production.submit("sleep", 0.0)
        production.event(job, State.STARTED)
        last = production.submit("aio_nap", 5.0)
        production.end(last)
        assert health(port)[1]["restarts"] == 0


@pytest.mark.parametrize("where", ["here", "child"])
def test_who_holds_the_loop_up_is_named(client: Client, tmp_path: Path, where: str) -> None:
    port = free_port()
    argv = ("-P", "asyncio", *TASKS)
    with worker(client, tmp_path, *argv, DURE_WORKER_HEALTH=f"127.0.0.1:{port}") as running:
        job = client.submit("aio_block", 2.0, where)
        client.until(lambda: b"the loop is held up" in running.log.read_bytes(), "the warning")
        assert health(port, "/live")[0] == 200  # told while the loop stands still
        client.end(job)
        client.until(lambda: b"the loop turns again" in running.log.read_bytes(), "the end of it")
        lines = [line for line in running.log.read_text().splitlines() if "the loop" in line]
        told = health(port)[1]
    assert len(lines) == 2, "once for each block"
    for line in lines:
        assert job in line
        assert "aio_block" in line
    stack = [line for line in running.log.read_text().splitlines() if ".py:" in line and " in " in line]
    assert "health_tasks.py" in stack[0], "no frames of the worker come first"
    assert stack[-1].endswith(" in compute")
    assert told["loop_blocks"] == 1


def test_blocks_are_not_looked_for_where_the_limit_is_zero(production: Client, tmp_path: Path) -> None:
    argv = ("-P", "asyncio", *TASKS)
    with worker(production, tmp_path, *argv, DURE_LOOP_BLOCK_LIMIT="0") as running:
        production.end(production.submit("aio_block", 1.5))
        assert b"the loop" not in running.log.read_bytes()
