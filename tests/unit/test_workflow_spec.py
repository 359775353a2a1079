from typing import Any

import pytest

from dure.errors import InvalidSubmission
from dure.workflows.spec import read_spec, written

A = {"task": "a"}


def wrong(value: Any, loc: tuple[str | int, ...] = ()) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(InvalidSubmission) as caught:
        read_spec(value, loc)
    return {error.loc: error.message for error in caught.value.errors}


@pytest.mark.parametrize(
    "spec",
    [
        {"task": "a", "args": [1], "kwargs": {"x": None}, "immutable": True, "queue": "q", "tags": ["t"], "delay": 1.0},
        {"nodes": {"a": A, "b": {**A, "needs": {"a": "end"}}}, "result": {"$result": "a"}, "name": "w", "timeout": 5.0},
        {"chain": [A, {"group": [A, A], "name": "g"}, {"wait": {"timeout": 1.0}, "on_failure": "continue"}]},
        {"chord": {"header": [A], "body": {**A, "link": [A], "link_error": [{"chain": [A]}]}}},
        {"map": {"over": [1, 2], "task": "a", "args": [{"$item": True}], "queue": "q"}},
        {"map": {"over": {"$result": "a"}, "do": {"chain": [A]}}},
    ],
)
def test_what_was_read_is_written_as_it_was_sent(spec: Any) -> None:
    assert written(read_spec(spec)) == spec


def test_needs_may_be_a_list_of_names() -> None:
    assert read_spec({**A, "needs": ["x", "y"]}).needs == {"x": None, "y": None}


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        (5, ()),
        ({}, ()),
        ({"chain": []}, ("chain",)),
        ({"chain": [A, 5]}, ("chain", 1)),
        ({"chain": [A], "group": [A]}, ("group",)),
        ({"group": [{"chain": [A, {"task": "a", "args": 3}]}]}, ("group", 0, "chain", 1, "args")),
        ({"chord": {"header": [A]}}, ("chord", "body")),
        ({"nodes": {}}, ("nodes",)),
        ({"nodes": {"a": {"task": "a", "argz": []}}}, ("nodes", "a", "argz")),
        ({"nodes": {"a b": A}}, ("nodes", "a b")),
        ({"map": {"over": [1]}}, ("map", "do")),
        ({"map": {"over": [1], "task": "a", "argz": 1}}, ("map", "argz")),
        ({"map": {"over": [1], "do": {"group": 1}}}, ("map", "do", "group")),
        ({"wait": {"timeout": -1}}, ("wait", "timeout")),
        ({"task": "a", "name": "a.b"}, ("name",)),
        ({"task": "a", "needs": "b"}, ("needs",)),
        ({"task": "a", "needs": {"b": "sometimes"}}, ("needs", "b")),
        ({"task": "a", "needs": {"b": "error"}}, ("needs", "b")),
        ({"task": "a", "on_failure": "retry"}, ("on_failure",)),
        ({"task": "a", "expires": "soon"}, ("expires",)),
        ({"task": "a", "link_error": [{"task": ""}]}, ("link_error", 0, "task")),
        ({"task": "a", "unique_key": "k"}, ("unique_key",)),
    ],
)
def test_a_wrong_place_is_named_as_it_was_sent(spec: Any, where: tuple[str | int, ...]) -> None:
    assert list(wrong(spec)) == [where]
    assert list(wrong(spec, ("body",))) == [("body", *where)]


def test_all_wrong_places_are_named_at_once() -> None:
    assert list(wrong({"chain": [{"task": ""}, {"group": 1}]})) == [("chain", 0, "task"), ("chain", 1, "group")]


def test_an_unknown_key_is_told_what_there_is() -> None:
    assert "queue" in wrong({"task": "a", "quue": "x"})[("quue",)]


def test_a_unique_key_is_refused_with_what_to_do() -> None:
    assert "idempotency" in wrong({"task": "a", "unique_key": "k"})[("unique_key",)]


def nested(depth: int) -> Any:
    form: Any = A
    for level in range(depth - 1):
        form = [{"chain": [form]}, {"chord": {"header": [], "body": form}}, {"map": {"over": [], "do": form}}][
            level % 3
        ]
    return form


def test_forms_are_nested_a_hundred_deep_and_no_deeper() -> None:
    read_spec(nested(60))
    form: Any = A
    for _ in range(99):
        form = {"chain": [form]}
    read_spec(form)
    assert "deeper than 100" in next(iter(wrong({"chain": [form]}).values()))
    for _ in range(5_000):
        form = {"group": [form]}
    assert "deeper than 100" in next(iter(wrong(form).values()))


def test_a_celery_signature_is_read_as_the_workflow_that_it_is() -> None:
    signature = {"task": "a", "args": [1], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    assert written(read_spec(signature)) == {"task": "a", "args": [1]}
