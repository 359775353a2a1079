"""Results and errors on their way into an event."""

import pickle
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from kombu.exceptions import EncodeError
from pydantic import BaseModel

from dure.worker.failure import failure
from dure.worker.request import attempt_number
from dure.worker.result import Result, encode


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
