"""Results and errors on their way into an event."""

import pickle
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from celery import Signature, chord, group
from kombu.exceptions import EncodeError
from pydantic import BaseModel

from dure.worker.failure import failure
from dure.worker.request import attempt_number
from dure.worker.result import Result, WorkflowTooLarge, encode
from dure.workflow import WORKFLOW_BYTES


class Model(BaseModel):
    x: int


@dataclass
class Data:
    x: Any


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        ({"a": [1, 2.5, "x"]}, {"a": [1, 2.5, "x"]}),
        ([float("inf"), float("nan")], [None, None]),
        (2**70, 2**70),
        (Model(x=1), {"x": 1}),
        (Data([Model(x=1)]), {"x": [{"x": 1}]}),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z"),
        (Decimal("1.50"), "1.50"),
        ({1: 2}, {"1": 2}),
        ("\ud800", "?"),
    ],
)
def test_values_become_json(value: Any, plain: Any) -> None:
    assert msgspec.json.decode(encode(value)) == plain


class Builder(BaseModel):
    """Not told as the model that it is."""

    steps: int

    def __json__(self) -> Any:
        return {"$workflow": {"chain": [step("a", n) for n in range(self.steps)]}}


@dataclass
class Place:
    value: Any

    def __json__(self) -> Any:
        return {"at": self.value}


def step(*args: Any) -> Signature[Any]:
    return Signature("step", args)


def signature(*args: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    return {"task": "step", "args": [*args]} | empty


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (step(1), signature(1)),
        (step(Model(x=1)), signature({"x": 1})),
        (Builder(steps=2), {"$workflow": {"chain": [signature("a", 0), signature("a", 1)]}}),
        ([Builder(steps=0)], [{"$workflow": {"chain": []}}]),
        (Place(Model(x=1)), {"at": {"x": 1}}),
    ],
)
def test_what_writes_itself_is_told_as_it_is_written(value: Any, plain: Any) -> None:
    assert msgspec.json.decode(encode(value)) == plain


@pytest.mark.parametrize("wrap", [lambda canvas: canvas, lambda canvas: {"$workflow": canvas}])
def test_a_canvas_of_what_comes_from_a_generator_is_told_whole(wrap: Any) -> None:
    for made in (group(step(n) for n in range(3)), chord((step(n) for n in range(3)), step())):
        told = msgspec.json.decode(encode(wrap(made)))
        told = told.get("$workflow", told)["kwargs"]
        assert told.get("tasks", told.get("header")) == [signature(0), signature(1), signature(2)]


def test_a_workflow_is_told_whatever_the_limit_of_results() -> None:
    for value in (
        step("x" * 100),
        {"$workflow": {"chain": []}},
        group([step(1)]) | step(),
        signature() | {"chord_size": 1},
    ):
        assert "value" in Result.of("", encode(value), 10).fields()
    for other in ({"$workflow": 1, "more": "x" * 10}, {"task": "step", "args": []}, ["x" * 100]):
        assert "value" not in Result.of("", encode(other), 10).fields()


def test_a_workflow_that_no_message_takes_is_an_error() -> None:
    with pytest.raises(WorkflowTooLarge, match="by reference"):
        encode(step("x" * WORKFLOW_BYTES))
    assert len(encode(["x" * WORKFLOW_BYTES])) > WORKFLOW_BYTES


def test_a_workflow_has_no_null_for_what_was_a_number() -> None:
    with pytest.raises(EncodeError):
        encode(step(float("nan")))


def _endless() -> Any:
    while True:
        yield 1


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize("value", [object(), [object()], _endless(), [_endless()], Data(_endless()), LOOP, len])
def test_what_is_no_json_is_an_encode_error(value: Any) -> None:
    with pytest.raises(EncodeError):
        encode(value)


def test_a_result_goes_through_a_pipe() -> None:
    result = pickle.loads(pickle.dumps(Result.of("'x'", b'"x"', 10)))
    assert (str(result), result.json, result.size) == ("'x'", b'"x"', 3)


def test_a_result_over_the_limit_tells_its_size_only() -> None:
    assert Result.of("'x'", b'"x"', 2).fields() == {"value_bytes": 3}


def _raise(exc: BaseException) -> BaseException:
    try:
        raise exc
    except type(exc) as raised:
        return raised


def test_a_fingerprint_knows_type_and_place_but_no_values() -> None:
    one, two = (failure(_raise(ValueError(text))).error.fingerprint for text in ("a", "b"))
    assert one == two
    assert failure(_raise(KeyError("a"))).error.fingerprint != one
    assert failure(ValueError("a")).error.fingerprint != one


@pytest.mark.parametrize(
    ("headers", "redelivered", "attempt"),
    [
        ({}, False, 1),
        ({}, True, 2),
        ({"x-delivery-count": 3}, True, 4),
        ({"dure_attempt": 2}, False, 3),
        ({"dure_attempt": 2, "x-delivery-count": 1}, True, 4),
        ({"dure_attempt": "two"}, False, 1),
        (None, False, 1),
    ],
)
def test_an_attempt_counts_messages_and_deliveries(headers: Any, redelivered: bool, attempt: int) -> None:
    message = SimpleNamespace(headers=headers, delivery_info={"redelivered": redelivered})
    assert attempt_number(message) == attempt
