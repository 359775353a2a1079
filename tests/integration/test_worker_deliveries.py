"""Messages that are delivered again, that nobody can run, or that kill their workers: each job comes to one end."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Exchange, Queue

from dure.dead import QUEUE_HEADER
from dure.job import Reason, State
from tests.integration.worker_harness import Client, app_name, worker
from tests.services import RabbitMQ

QUEUES = ["celery", "made", "bare"]  # the application's, which is classic; Dure's; a quorum queue of somebody else


@pytest.fixture(scope="module")
def client(rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(rabbitmq.start().vhost())
    Queue("bare", Exchange("bare"), "bare", queue_arguments={"x-queue-type": "quorum"})(client.channel).declare()
    folder = tmp_path_factory.mktemp("worker")
    with worker(client, folder, "-P", "prefork", "-c", "2", "-Q", ",".join(QUEUES), DURE_DELIVERY_LIMIT="2"):
        yield client
    client.close()


@pytest.fixture
def own(rabbitmq_url: str) -> Iterator[Client]:
    client = Client(rabbitmq_url)
    yield client
    client.close()


@pytest.mark.parametrize("queue", QUEUES)
def test_a_job_that_kills_its_process_each_time_is_buried(client: Client, queue: str) -> None:
    job = client.submit("die", queue=queue)
    end = client.end(job)
    assert (end.state, end.reason, end.attempt) == (State.FAILURE, Reason.DELIVERY_LIMIT, 3)
    assert end.error
    assert (end.error.type, "2 times" in end.error.message) == ("dure.errors.DeadLetter", True)
    assert [client.event(job, State.STARTED, attempt) for attempt in (1, 2)]
    letter = client.dead(job, Reason.REJECTED if queue == "made" else Reason.DELIVERY_LIMIT)
    assert letter.queue == queue
    assert (QUEUE_HEADER in letter.headers) is (queue != "made")  # the broker sent it there by itself
    client.until(lambda: client.depth(queue) == 0)
    assert client.end(client.submit("add", 1, queue=queue)).result == 3


def test_a_retry_begins_the_count_of_deliveries_anew(client: Client, tmp_path: Path) -> None:
    steps = ("die", "fail", "die", "done")
    jobs = [client.submit("act", str(tmp_path / queue), *steps, queue=queue, retries=1) for queue in QUEUES]
    ends = [client.end(job) for job in jobs]
    assert [(end.state, end.result, end.attempt) for end in ends] == [(State.SUCCESS, "done", 4)] * len(QUEUES)


@pytest.mark.parametrize("queue", QUEUES)
def test_a_job_of_an_unknown_task_is_a_dead_letter(client: Client, queue: str) -> None:
    job = client.submit("nothing_of_the_kind", queue=queue)
    end = client.end(job)
    assert (end.state, end.reason, end.attempt) == (State.FAILURE, Reason.UNREGISTERED, 1)
    assert end.error
    client.dead(job, Reason.REJECTED if queue == "made" else Reason.UNREGISTERED)


def test_a_rejected_job_is_a_dead_letter(client: Client) -> None:
    job = client.submit("raise_reject")
    assert client.end(job).state is State.FAILURE
    assert client.dead(job, Reason.REJECTED).queue == "celery"


def test_a_message_that_is_no_json_is_a_dead_letter(client: Client) -> None:
    headers = {"id": "broken", "task": f"{app_name()}.noop"}
    producer = client.connection.Producer(client.channel)
    for content_type in ("application/json", "application/x-python-serialize"):
        producer.publish(
            b"{",
            exchange="",
            routing_key="celery",
            headers=headers,
            content_type=content_type,
            content_encoding="utf-8",
        )
        assert client.dead("broken", Reason.REJECTED).body == b"{"
    assert client.end("broken").reason == Reason.REJECTED


def test_a_message_without_an_id_stops_nobody(client: Client) -> None:
    producer = client.connection.Producer(client.channel)
    producer.publish(
        b"[[],{},{}]",
        exchange="",
        routing_key="celery",
        headers={"task": f"{app_name()}.noop"},
        content_type="application/json",
        content_encoding="utf-8",
    )
    assert client.end(client.submit("noop")).state is State.SUCCESS


def test_a_message_that_was_published_twice_runs_once(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    job = client.submit("note", str(path), 0.5, times=2)
    assert client.end(job).result == "noted"
    client.until(lambda: client.depth("celery") == 0)
    assert client.end(client.submit("noop")).state is State.SUCCESS
    assert path.read_text() == "run\n"


def test_a_worker_that_is_killed_each_time_buries_its_job(own: Client, tmp_path: Path) -> None:
    word = tmp_path / "word"  # a worker that died before it was seen to be ready would be taken for a broken one
    for attempt in (1, 2):
        with worker(own, tmp_path, "-c", "1", DURE_DELIVERY_LIMIT="2") as running:
            if attempt == 1:
                job = own.submit("die_at", str(word))
            word.touch()
            assert running.process.wait(20) == -9
        word.unlink()
    with worker(own, tmp_path, "-c", "1", DURE_DELIVERY_LIMIT="2"):
        end = own.end(job)
        assert (end.reason, end.attempt) == (Reason.DELIVERY_LIMIT, 3)
        own.dead(job, Reason.DELIVERY_LIMIT)


@pytest.mark.parametrize(("pool", "queue"), [("asyncio", "celery"), ("prefork", "made")])
def test_a_job_whose_connection_is_cut_runs_once(
    own: Client, rabbitmq: RabbitMQ, tmp_path: Path, pool: str, queue: str
) -> None:
    with worker(own, tmp_path, "-P", pool, "-c", "1", "-Q", queue) as running:
        job = own.submit("note_until", str(tmp_path / "runs"), str(tmp_path / "end"), queue=queue)
        own.event(job, State.STARTED)
        rabbitmq.ctl("close_all_connections", "--vhost", own.url.rpartition("/")[2], "test")
        own.until(lambda: b"takes the new delivery over" in running.log.read_bytes())
        (tmp_path / "end").touch()
        end = own.end(job)
        assert (end.state, end.attempt, end.result) == (State.SUCCESS, 1, "noted")
        assert own.end(own.submit("noop", queue=queue)).state is State.SUCCESS
        assert running.stop() == 0
    assert (tmp_path / "runs").read_text() == "run\n"
    assert own.depth(queue) == 0


def test_a_success_that_is_stored_is_told_and_not_run_again(own: Client, redis_url: str, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    with worker(own, tmp_path, "-c", "1", TEST_RESULTS=redis_url, TEST_DELAY_SUCCESS="60") as first:
        job = own.submit("note", str(path))
        own.until(lambda: b"succeeded in" in first.log.read_bytes())
        first.kill()
    with worker(own, tmp_path, "-c", "1", TEST_RESULTS=redis_url):
        end = own.end(job)
        assert (end.state, end.has_result, end.result, end.attempt) == (State.SUCCESS, True, "noted", 2)
        own.until(lambda: own.depth("celery") == 0)
    assert path.read_text() == "run\n"


def test_the_embedded_broker_keeps_dead_letters_by_itself(tmp_path: Path) -> None:
    client = Client(f"dure://{tmp_path}/broker.db")
    with worker(client, tmp_path, "-P", "prefork", "-c", "1", DURE_DELIVERY_LIMIT="2"):
        killer, unknown, refused = (client.submit(name) for name in ("die", "nothing_of_the_kind", "raise_reject"))
        end = client.end(killer)
        assert (end.state, end.reason, end.attempt) == (State.FAILURE, Reason.DELIVERY_LIMIT, 3)
        assert client.end(unknown).reason == Reason.UNREGISTERED
        assert client.end(refused).state is State.FAILURE
        letters = {}

        def found() -> bool:
            while message := client.channel.basic_get("dure.dead", no_ack=True):
                letters[message.headers["id"]] = message.headers["x-death"][0]["reason"]
            return len(letters) == 3

        client.until(found, "three dead letters")
        assert letters == dict.fromkeys((killer, unknown, refused), "rejected")
        assert client.depth("celery") == 0
    client.close()


def test_a_thread_that_leaves_the_interpreter_does_not_keep_its_job(own: Client, tmp_path: Path) -> None:
    with worker(own, tmp_path, "-c", "1", DURE_DELIVERY_LIMIT="2"):
        end = own.end(own.submit("leave"))
        assert (end.state, end.reason) == (State.FAILURE, Reason.DELIVERY_LIMIT)
