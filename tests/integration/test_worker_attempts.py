"""What an adopted application's worker tells of its attempts, on each pool."""

import math
from collections.abc import Iterator

import pytest

from dure.job import Reason, State
from tests.integration.worker_harness import Client, app_name, worker
from tests.services import RabbitMQ


@pytest.fixture(scope="module", params=["asyncio", "threads", "prefork", "solo"])
def client(
    request: pytest.FixtureRequest, rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    client = Client(rabbitmq.start().vhost())
    with worker(client, tmp_path_factory.mktemp("worker"), "-P", request.param, "-c", "2"):
        yield client
    client.close()


def test_a_success_carries_its_value_and_attempt(client: Client) -> None:
    job = client.submit("add", 1)
    end = client.end(job)
    assert (end.state, end.result, end.has_result, end.attempt) == (State.SUCCESS, 3, True, 1)
    received = client.event(job, State.QUEUED)
    assert (received.delivery, received.queue) == (True, "celery")
    assert client.event(job, State.STARTED).attempt == 1


def test_none_is_a_value_and_not_a_number_is_null(client: Client) -> None:
    for what in ("none", "nan"):
        end = client.end(client.submit("give", what))
        assert (end.result, end.has_result) == (None, True)


def test_a_failure_carries_a_described_error(client: Client) -> None:
    first, second = (client.end(client.submit("fail", message)) for message in ("one", "two"))
    assert first.error
    assert second.error
    assert (first.state, first.reason, first.error.type, first.error.message) == (
        State.FAILURE,
        Reason.ERROR,
        "ValueError",
        "one",
    )
    assert "in fail" in (first.error.traceback or "")
    assert first.error.fingerprint == second.error.fingerprint


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("unpicklable", f"{app_name()}.Unpicklable", "this and that"),
        ("unprintable", f"{app_name()}.Unprintable", "<Unprintable that cannot be printed>"),
        ("huge", "RuntimeError", "xxx"),
    ],
)
def test_an_odd_exception_is_a_sane_failure(client: Client, how: str, kind: str, message: str) -> None:
    error = client.end(client.submit("fail_badly", how)).error
    assert error
    assert error.type == kind
    assert error.message.startswith(message)
    assert len(error.message) <= 16_384
    assert len(error.traceback or "") <= 65_536


def test_a_result_that_is_no_json_fails_the_job(client: Client) -> None:
    end = client.end(client.submit("give", "object"))
    assert (end.state, end.reason) == (State.FAILURE, Reason.UNSERIALIZABLE)


def test_a_result_over_the_limit_stays_out_of_the_event(client: Client) -> None:
    end = client.end(client.submit("give", "large"))
    assert (end.state, end.has_result) == (State.SUCCESS, False)


def test_a_task_that_retries_itself_counts_its_attempts(client: Client) -> None:
    job = client.submit("retry_twice")
    assert client.end(job).attempt == 3
    retried = client.event(job, State.RETRY, attempt=2)
    assert retried.error
    assert retried.error.type == "KeyError"


def test_asked_for_retries_are_made(client: Client) -> None:
    job = client.submit("attempts", 1, retries=2)
    end = client.end(job)
    assert (end.state, end.attempt, end.result) == (State.SUCCESS, 2, 1)
    assert client.event(job, State.RETRY).error


def test_no_more_retries_than_asked_for_are_made(client: Client) -> None:
    end = client.end(client.submit("attempts", 9, retries=1))
    assert (end.state, end.attempt) == (State.FAILURE, 2)


def test_a_rejected_job_fails(client: Client) -> None:
    end = client.end(client.submit("raise_reject"))
    assert end.state is State.FAILURE


def test_every_message_is_acknowledged(client: Client) -> None:
    jobs = [client.submit("noop") for _ in range(20)] + [client.submit("raise_ignore")]
    for job in jobs[:-1]:
        client.end(job)
    assert not math.isnan(client.depth("celery"))
    client.until(lambda: client.depth("celery") == 0)
