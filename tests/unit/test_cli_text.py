"""How the command line reads and writes times, arguments and signatures."""

from datetime import UTC, datetime
from typing import Any

import pytest
import typer

from dure.cli import times
from dure.cli.signature import signature
from dure.cli.submit import named_value, value
from dure.task import Task


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5", 1.5), ("10m", 600), ("2h", 7200), ("1d", 86_400)])
def test_a_duration_is_read_in_its_unit(text: str, seconds: float) -> None:
    assert times.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "10 minutes", "1m2"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        times.duration(text)


def test_a_moment_keeps_its_offset_and_a_past_one_may_be_told_as_a_duration() -> None:
    assert times.moment("2026-01-31T09:00+09:00") == datetime(2026, 1, 31, 0, 0, tzinfo=UTC)
    assert times.moment("2026-01-31T09:00").tzinfo is not None
    assert times.past("1h") == pytest.approx(datetime.now(UTC).timestamp() - 3600, abs=5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.012, "12 ms"),
        (3.21, "3.2 s"),
        (60, "1 min"),
        (250, "4 min 10 s"),
        (7500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_a_span_is_written_for_people(seconds: float, text: str) -> None:
    assert times.span(seconds) == text


def test_an_age_is_coarse_and_knows_the_future() -> None:
    assert times.ago(100.0, 105.0) == "5 s ago"
    assert times.ago(0.0, 250.0) == "4 min ago"
    assert times.ago(7300.0, 100.0) == "in 2 h"
    assert times.ago(None, 0.0) == "–"


@pytest.mark.parametrize(
    ("text", "read"),
    [("2", 2), ("-2.5", -2.5), ("true", True), ("null", None), ("[1]", [1]), ('"2"', "2"), ("two words", "two words")],
)
def test_an_argument_is_json_where_it_can_be(text: str, read: Any) -> None:
    assert value(text) == read


def test_a_named_argument_needs_a_name() -> None:
    assert named_value("x=a=b") == ("x", "a=b")
    with pytest.raises(typer.BadParameter):
        named_value("=1")


def test_a_signature_is_written_as_python_would() -> None:
    properties = {
        "x": {"type": "integer"},
        "names": {"type": "array", "items": {"type": "string"}, "default": None},
        "mode": {"enum": ["a", "b"], "default": "a"},
        "anything": {},
        "item": {"$ref": "#/$defs/Item"},
    }
    task = Task(
        name="t",
        arguments={"type": "object", "properties": properties, "additionalProperties": False},
        result={"anyOf": [{"type": "number"}, {"type": "null"}]},
        positional=("x", "names"),
    )
    assert signature(task) == (
        '(x: int, names: list[str] = None, *, mode: "a" | "b" = "a", anything, item: Item) -> float | None'
    )


def test_a_stock_workers_task_has_an_unknown_signature() -> None:
    assert signature(Task(name="t")) == "(…)"
