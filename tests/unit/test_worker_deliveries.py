"""What is counted of a message's deliveries, and which messages are known to come again."""

from types import SimpleNamespace
from typing import Any

import pytest

from dure.worker.consumer_timeout import at_risk, server_version
from dure.worker.deliveries import (
    DELIVERIES_HEADER,
    attempt_number,
    headers_of_copy,
    is_counted,
    is_only_one,
    stage,
    unended,
)
from dure.worker.memory import Delivery, Known, Memory

RANDOM = "01890a5d-ac96-774b-bcce-b302099a8057"
BY_NAME = "886313e1-3b8a-5372-9b90-0c9aee199e5d"


def message(redelivered: bool = False, **headers: Any) -> Any:
    named = {name.replace("x_", "x-").replace("_count", "-count"): value for name, value in headers.items()}
    return SimpleNamespace(headers=named, delivery_info={"redelivered": redelivered})


@pytest.mark.parametrize(
    ("given", "attempt", "deliveries", "counted"),
    [
        (message(), 1, 0, False),
        (message(redelivered=True), 2, 1, False),
        (message(redelivered=True, **{"x-delivery-count": 3}), 4, 3, True),
        (message(dure_attempt=2), 3, 0, False),
        (message(dure_attempt=4, dure_deliveries=1), 5, 1, False),
        (message(True, dure_attempt=4, dure_deliveries=1), 6, 2, False),
        (message(dure_attempt="many", dure_deliveries=-1), 1, 0, False),
    ],
)
def test_attempts_and_deliveries_are_counted_apart(given: Any, attempt: int, deliveries: int, counted: bool) -> None:
    assert (attempt_number(given), unended(given), is_counted(given)) == (attempt, deliveries, counted)


def test_a_copy_has_no_headers_of_the_delivery() -> None:
    headers = {"id": "1", "x-death": [{}], "x-delivery-count": 2, "compression": "zlib", "CC": ["other"], "own": 1}
    assert headers_of_copy(headers, **{DELIVERIES_HEADER: 3}) == {"id": "1", "own": 1, DELIVERIES_HEADER: 3}


@pytest.mark.parametrize(
    ("given", "only"),
    [
        (message(id=RANDOM, origin="dure@1@host"), True),
        (message(id=RANDOM, origin="gen1@host"), False),
        (message(True, id=RANDOM, origin="gen1@host"), True),
        (message(True, id=BY_NAME), False),
        (message(True, id="every-night"), False),
        (message(True, id=None), False),
    ],
)
def test_an_id_that_somebody_may_use_again_makes_no_repetition(given: Any, only: bool) -> None:
    assert is_only_one(given) is only


class Attempt:
    def __init__(self, retries: int = 0, certain: bool = True, attached: bool = False) -> None:
        self.id, self.stage = "job", stage({"retries": retries})
        self.is_certain, self.is_attached = certain, attached
        self.delivery = delivery("first")


def delivery(name: str) -> Delivery:
    return Delivery(name, print, print)


@pytest.mark.parametrize(
    ("attempt", "retries", "known"),
    [
        (Attempt(), 0, Known.TAKEN_OVER),
        (Attempt(attached=True), 0, Known.TWICE),
        (Attempt(certain=False), 0, Known.NOT),
        (Attempt(), 1, Known.NOT),
        (Attempt(retries=1), 0, Known.ENDED),
    ],
)
def test_a_message_for_a_job_that_runs(attempt: Any, retries: int, known: Known) -> None:
    memory = Memory()
    memory.begin(attempt)
    assert memory.meet("job", stage({"retries": retries}), delivery("second")) is known
    assert memory.settle(attempt, ended=True).message == ("second" if known is Known.TAKEN_OVER else "first")


def test_what_ended_is_remembered_with_its_stage() -> None:
    memory, attempt = Memory(), Attempt(retries=1)
    memory.begin(attempt)  # type: ignore[arg-type]
    memory.settle(attempt, ended=True)  # type: ignore[arg-type]
    assert [memory.meet("job", (0, retries), delivery("x")) for retries in (0, 1, 2)] == [
        Known.ENDED,
        Known.ENDED,
        Known.NOT,
    ]


def test_what_goes_back_to_its_queue_has_not_ended() -> None:
    memory, attempt = Memory(), Attempt()
    memory.begin(attempt)  # type: ignore[arg-type]
    memory.settle(attempt, ended=False)  # type: ignore[arg-type]
    assert memory.meet("job", attempt.stage, delivery("x")) is Known.NOT


def test_the_memory_is_bounded() -> None:
    memory = Memory(remembered=2)
    for name in ("a", "b", "c"):
        attempt = Attempt()
        attempt.id = name
        memory.settle(attempt, ended=True)  # type: ignore[arg-type]
    assert list(memory.ended) == ["b", "c"]


def test_what_celery_drops_with_a_connection_is_forgotten() -> None:
    memory = Memory()
    for name, attempt in {
        "waits": Attempt(certain=False),
        "runs": Attempt(),
        "new": Attempt(False, True, True),
    }.items():
        attempt.id = name
        memory.begin(attempt)  # type: ignore[arg-type]
    memory.sweep()
    assert set(memory.running) == {"runs", "new"}


@pytest.mark.parametrize(
    ("properties", "version"),
    [
        ({"product": "RabbitMQ", "version": "3.11.15"}, (3, 11, 15)),
        ({"product": "RabbitMQ", "version": "4.3.0-beta.1"}, (4, 3, 0)),
        ({"product": "RabbitMQ", "version": "unknown"}, None),
        ({"product": "LavinMQ", "version": "2.0.0"}, None),
        ({}, None),
    ],
)
def test_the_servers_version_is_read(properties: dict[str, Any], version: tuple[int, ...] | None) -> None:
    assert server_version(properties) == version


@pytest.mark.parametrize(("version", "named"), [((3, 10, 8), ["made", "theirs"]), ((3, 13, 0), ["theirs"])])
def test_queues_without_a_consumer_timeout_that_the_server_heeds_are_named(
    version: tuple[int, ...], named: list[str]
) -> None:
    queues = [
        SimpleNamespace(name="theirs", queue_arguments=None),
        SimpleNamespace(name="made", queue_arguments={"x-consumer-timeout": 5}),
    ]
    assert at_risk(version, queues) == named
