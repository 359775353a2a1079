from typing import Any

import pytest

from dure.errors import InvalidSubmission
from dure.task import Task
from dure.workflows.check import check, task_names
from dure.workflows.compile import compile_spec
from dure.workflows.spec import read_spec

NUMBER, TEXT = {"type": "integer"}, {"type": "string"}
Places = list[tuple[str | int, ...]]


def known(name: str, properties: dict[str, Any], result: Any = None) -> Task:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return Task(name=name, arguments=schema, result=result, positional=tuple(properties))


LOADED = {
    "type": "object",
    "properties": {"names": {"type": "array", "items": TEXT}, "count": {"$ref": "#/$defs/count"}},
    "required": ["names", "count"],
    "additionalProperties": False,
    "$defs": {"count": NUMBER},
}
TASKS = {
    task.name: task
    for task in [
        known("add", {"x": NUMBER, "y": NUMBER}, NUMBER),
        known("name", {"x": NUMBER}, TEXT),
        known("total", {"xs": {"type": "array", "items": NUMBER}}, NUMBER),
        known("load", {}, LOADED),
        known("greet", {"who": {"$ref": "#/$defs/who"}}, TEXT),
        Task(name="anything"),
    ]
}
TASKS["greet"].arguments["$defs"] = {"who": TEXT}  # type: ignore[index]


def places(spec: Any, *, force: bool = False) -> Places:
    try:
        check(compile_spec(read_spec(spec)), TASKS, force=force)
    except InvalidSubmission as exc:
        return [error.loc for error in exc.errors]
    return []


def message(spec: Any) -> str:
    with pytest.raises(InvalidSubmission) as caught:
        check(compile_spec(read_spec(spec)), TASKS)
    return caught.value.errors[0].message


def task(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"task": name, "args": list(args), "kwargs": kwargs}


def result(name: str, *path: str | int) -> dict[str, Any]:
    return {"$result": name, "path": list(path)}


LOAD = {"load": task("load")}


@pytest.mark.parametrize(
    "spec",
    [
        {"chain": [task("add", 1, 2), task("add", 3), task("name")]},
        {"chord": {"header": [task("add", 1, 2), task("add", 1, y=2)], "body": task("total")}},
        {"nodes": {**LOAD, "a": task("add", result("load", "count"), 1)}},
        {"nodes": {**LOAD, "m": {"map": {"over": result("load", "names"), "task": "greet"}}}},
        {"nodes": {**LOAD, "h": task("anything", {"$error": "load"}), "g": task("name", {"$error": "load"})}},
        {"chain": [task("anything"), task("add", 1)]},
        {"chain": [{"wait": {}}, task("name")]},
        {"chain": [task("celery.map", task={"task": "add"}, it=[1]), task("anything")]},
        task("greet", {"$literal": "you"}),
    ],
)
def test_what_may_fit_passes(spec: Any) -> None:
    assert places(spec) == []


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        (task("ad", 1, 2), [("task",)]),
        ({"chain": [task("name", "x"), task("nix")]}, [("chain", 0, "args", 0), ("chain", 1, "task")]),
        ({"chain": [task("add", 1, 2), task("add", "x")]}, [("chain", 1, "args", 0)]),
        ({"chain": [task("add", 1, 2), task("add", z=1)]}, [("chain", 1, "kwargs", "y"), ("chain", 1, "kwargs", "z")]),
        ({"chain": [task("name", 1), task("add", 1)]}, [("chain", 1)]),
        ({"chain": [task("add", 1, 2), task("load")]}, [("chain", 1)]),
        ({"chord": {"header": [task("add", 1, 2), task("name", 1)], "body": task("total")}}, [("chord", "body")]),
        ({"chord": {"header": [task("add", 1, 2)], "body": task("name")}}, [("chord", "body")]),
        ({"nodes": {**LOAD, "a": task("add", 1, result("load", "nmes"))}}, [("nodes", "a", "args", 1)]),
        ({"nodes": {**LOAD, "a": task("add", 1, y=result("load", "names"))}}, [("nodes", "a", "kwargs", "y")]),
        ({"nodes": {**LOAD, "a": task("total", [1, "x", result("load")])}}, [("nodes", "a", "args", 0, 1)]),
        ({"nodes": {**LOAD, "a": task("total", [result("load", "names")])}}, [("nodes", "a", "args", 0)]),
        ({"nodes": {**LOAD, "m": {"map": {"over": result("load"), "task": "name"}}}}, [("nodes", "m", "map", "over")]),
        ({"nodes": {**LOAD, "m": {"map": {"over": result("load", "names"), "task": "name"}}}}, [("nodes", "m", "map")]),
        (
            {"map": {"over": [1], "do": {"chain": [task("name"), task("nix", {"$item": True})]}}},
            [("map", "do", "chain", 1, "task")],
        ),
        (
            {"chain": [{"map": {"over": [1, 2], "task": "name"}}, {"map": {"task": "name"}}]},
            [("chain", 1, "map")],
        ),
        (task("celery.map", task={"task": "ad"}, it=[1]), [("kwargs", "task", "task")]),
        ({"task": "add", "args": [1, 2], "link": [task("greet")]}, [("link", 0)]),
    ],
)
def test_what_cannot_fit_is_told_with_its_place(spec: Any, where: Places) -> None:
    assert places(spec) == where


def test_a_node_that_may_fail_may_give_null() -> None:
    failing = {**task("add", 1, 2), "on_failure": "continue"}
    assert places({"chain": [failing, task("name")]}) == []
    TASKS["nothing"] = known("nothing", {"x": {"type": "null"}})
    assert places({"chain": [failing, task("nothing")]}) == []
    assert places({"chain": [task("add", 1, 2), task("nothing")]}) == [("chain", 1)]


def test_a_forced_workflow_may_have_unknown_tasks_but_no_wrong_arguments() -> None:
    assert places({"chain": [task("nix"), task("name", "x", immutable=True)]}, force=True) != []
    assert places({"chain": [task("nix"), task("name")]}, force=True) == []


def test_near_names_and_the_reason_are_told() -> None:
    assert "did you mean greet" in message(task("gret"))
    assert message({"nodes": {**LOAD, "a": task("name", result("load", "names"))}}) == (
        "the result of 'load' at ['names'] gives a list where a number is wanted"
    )


def test_the_tasks_of_a_workflow_are_those_of_its_maps_too() -> None:
    spec = {"chain": [task("a"), {"map": {"do": {"chain": [task("b"), {"map": {"task": "c"}}]}}}]}
    starmap = task("celery.starmap", task={"task": "d"}, it=[])
    assert task_names(compile_spec(read_spec(spec))) == {"a", "b", "c"}
    assert task_names(compile_spec(read_spec(starmap))) == {"d"}


def test_where_a_schema_has_conditions_nothing_is_told_of_values_beside_a_reference() -> None:
    TASKS["either"] = known("either", {"x": {}, "y": {}})
    TASKS["either"].arguments.update(  # type: ignore[union-attr]
        {"if": {"properties": {"x": {"const": 1}}}, "else": {"properties": {"y": TEXT}}}
    )
    assert places({"nodes": {**LOAD, "a": task("either", result("load", "count"), 5)}}) == []
    assert places(task("either", 2, 5)) == [("args", 1)]
