from typing import Any

import pytest

from dure.arguments import ArgumentCheck
from dure.errors import InvalidSubmission
from dure.task import Task

ADD = Task(
    name="t.add",
    arguments={
        "type": "object",
        "properties": {
            "x": {"type": "integer"},
            "y": {"type": "integer"},
            "points": {"type": "array", "items": {"$ref": "#/$defs/point"}},
        },
        "required": ["x"],
        "additionalProperties": False,
        "$defs": {"point": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}},
    },
    positional=("x", "y", "points"),
)
LOG = Task(
    name="t.log",
    arguments={"type": "object", "properties": {"level": {"enum": ["info", "error"]}}, "required": ["level"]},
    positional=("level",),
    variadic=True,
)


def places(
    task: Task, args: list[Any], kwargs: dict[str, Any] | None = None, *, named: bool = False
) -> list[tuple[str | int, ...]]:
    try:
        ArgumentCheck(task).check(args, kwargs or {}, named=named)
    except InvalidSubmission as exc:
        return [error.loc for error in exc.errors]
    return []


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [([1], {}), ([1, 2], {}), ([], {"x": 1}), ([1], {"y": 2}), ([1, 2, [{"a": 1.5}]], {}), ([2**80], {})],
)
def test_arguments_that_fit_pass_by_position_and_by_name(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert places(ADD, args, kwargs) == []


@pytest.mark.parametrize(
    ("args", "kwargs", "where"),
    [
        (["one"], {}, [("args", 0)]),
        ([1, None], {}, [("args", 1)]),
        ([1], {"y": "two"}, [("kwargs", "y")]),
        ([], {"y": 2}, [("kwargs", "x")]),
        ([1], {"z": 2}, [("kwargs", "z")]),
        ([1], {"z": 2, "w": 2}, [("kwargs", "z"), ("kwargs", "w")]),
        ([1, 2, [{"a": 1}, {"a": "b"}]], {}, [("args", 2, 1, "a")]),
        ([1], {"points": [{}]}, [("kwargs", "points", 0)]),
        (["one"], {"y": "two", "z": 3}, [("args", 0), ("kwargs", "y"), ("kwargs", "z")]),
        ([1, 2, [], 4, 5], {}, [("args", 3), ("args", 4)]),
        ([1], {"x": 1}, [("args", 0)]),
    ],
)
def test_each_complaint_names_the_place_as_the_caller_wrote_it(
    args: list[Any], kwargs: dict[str, Any], where: list[tuple[str | int, ...]]
) -> None:
    assert sorted(places(ADD, args, kwargs), key=str) == sorted(where, key=str)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"x": "one"}, [("x",)]),
        ({}, [("x",)]),
        ({"x": 1, "z": 1}, [("z",)]),
        ({"x": 1, "points": [{"a": "b"}]}, [("points", 0, "a")]),
    ],
)
def test_a_body_of_named_arguments_is_complained_of_without_a_prefix(
    body: dict[str, Any], where: list[tuple[str | int, ...]]
) -> None:
    assert places(ADD, [], body, named=True) == where


def test_a_wrong_argument_and_too_many_positions_are_both_told() -> None:
    assert sorted(places(ADD, ["one", 2, [], 4]), key=str) == [("args", 0), ("args", 3)]


def test_a_variadic_task_takes_further_positions() -> None:
    assert places(LOG, ["info", 1, 2, 3]) == []
    assert places(LOG, ["loud", 1]) == [("args", 0)]


def test_an_argument_given_twice_is_told_of_even_where_the_schema_is_met() -> None:
    with pytest.raises(InvalidSubmission, match="both by position and by name"):
        ArgumentCheck(ADD).check([1], {"x": 1})


def test_a_task_whose_schema_is_not_known_takes_anything() -> None:
    assert places(Task(name="t"), [1, 2, 3], {"z": object}) == []


def test_a_complaint_is_no_longer_than_a_reader_can_bear() -> None:
    with pytest.raises(InvalidSubmission) as caught:
        ArgumentCheck(ADD).check(["x" * 10_000], {})
    assert len(caught.value.errors[0].message) <= 300


@pytest.mark.parametrize("value", ["\x00", "é😀", 10**300, 1e308, -0.0])
def test_any_json_value_is_judged_and_none_is_an_error_of_ours(value: Any) -> None:
    assert places(ADD, [value]) in ([], [("args", 0)])
