import json
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain
from kombu.utils.json import dumps
from mypy import api as mypy

from dure.workflows import DAG
from dure.workflows.compile import compile_spec
from dure.workflows.spec import read_spec
from tests.unit.workflow_interpreter import Interpreter

app = Celery("builder", set_as_current=False)


@app.task(name="kitchen.load")
def load(month: str) -> dict[str, list[int]]:
    return {"items": [1, 2, 3]}


@app.task(name="kitchen.double")
def double(number: int, factor: int = 2) -> int:
    return number * factor


@app.task(name="kitchen.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="kitchen.fail")
def fail() -> None:
    raise ValueError("no")


TASKS = {task.name: task for task in (load, double, total, fail)}


def run(dag: DAG) -> Any:
    spec = json.loads(json.dumps(dag.spec()))
    return Interpreter(lambda name, args, kwargs: TASKS[name](*args, **kwargs)).result(compile_spec(read_spec(spec)))


def test_results_feed_arguments_wherever_they_stand() -> None:
    dag = DAG()
    loaded = dag.add(load, "2026-01")
    doubled = dag.map(double, loaded.result["items"], factor=10)
    dag.add(total, [doubled.result[0], dag.add(double, loaded.result["items"][2]).result]).set(name="end")
    assert run(dag) == {"end": 16}


def test_nodes_are_called_by_their_tasks_and_can_be_named() -> None:
    dag = DAG("report", timeout=60)
    first, second = dag.add("kitchen.load", "x"), dag.add("kitchen.load", "y")
    dag.add("other", first.result).set(name="last", needs=[second], queue="q", on_failure="continue")
    second.set(name="second")
    assert dag.spec() == {
        "name": "report",
        "timeout": 60,
        "nodes": {
            "load": {"task": "kitchen.load", "args": ["x"]},
            "second": {"task": "kitchen.load", "args": ["y"]},
            "last": {
                "task": "other",
                "args": [{"$result": "load"}],
                "needs": ["second"],
                "queue": "q",
                "on_failure": "continue",
            },
        },
    }


def test_a_name_is_given_once() -> None:
    dag = DAG()
    dag.add("a")
    with pytest.raises(ValueError, match="'a' already"):
        dag.add("b").set(name="a")


def test_a_handler_is_told_how_its_node_failed() -> None:
    dag = DAG()
    failing = dag.add(fail)
    handler = failing.on_failure("kitchen.total", [failing.error["message"]]).set(name="h")
    compiled = compile_spec(read_spec(dag.returns(handler.result).spec()))
    result = Interpreter(lambda name, args, kwargs: fail() if name == "kitchen.fail" else args).result(compiled)
    assert result == [["no"]]


def test_chains_groups_and_chords_take_signatures_nodes_and_forms() -> None:
    dag = DAG()
    first = dag.add(double, 1)
    group = dag.group(first, double.s(2), {"task": "kitchen.double", "args": [3]})
    dag.chain(group, total.s(), double.s(5)).set(name="sum")
    dag.chord([double.s(first.result), double.s(10)], total.s()).set(name="other")
    assert run(dag) == {"sum": 60, "other": 24}


def test_a_node_stands_in_one_place() -> None:
    dag = DAG()
    node = dag.add(double, 1)
    dag.group(node)
    with pytest.raises(ValueError, match="another already"):
        dag.group(node)


def test_a_map_takes_a_canvas_or_a_dag_for_each_item_and_the_item_may_stand_anywhere() -> None:
    dag, inner = DAG(), DAG()
    inner.add(double, dag.item).set(name="twice")
    dag.map(inner, [1, 2]).set(name="dags")
    dag.map(chain(double.s(), double.s()), [1, 2]).set(name="chains")
    dag.map("kitchen.double", [5], 1, factor=dag.item).set(name="swapped")
    assert run(dag) == {"dags": [{"twice": 2}, {"twice": 4}], "chains": [4, 8], "swapped": [5]}


def test_options_of_a_map_are_its_tasks_and_its_needs_its_own() -> None:
    dag = DAG()
    dag.map("a", [1]).set(queue="q", needs=[dag.add("b")])
    assert dag.spec()["nodes"]["a"] == {"map": {"over": [1], "task": "a", "queue": "q"}, "needs": ["b"]}


def test_a_wait_is_named_and_has_its_own_timeout() -> None:
    dag = DAG()
    approval = dag.wait("approval", timeout=60)
    dag.add("publish", approval.result["by"])
    assert dag.spec()["nodes"]["approval"] == {"wait": {"timeout": 60}}
    assert dag.spec()["nodes"]["publish"]["args"] == [{"$result": "approval", "path": ["by"]}]


def test_data_that_looks_like_a_reference_is_quoted() -> None:
    dag = DAG()
    dag.add("a", {"x": {"$result": "y"}})
    assert dag.spec()["nodes"]["a"]["args"] == [{"x": {"$literal": {"$result": "y"}}}]


def test_a_result_that_is_not_there_yet_cannot_be_gone_over_or_judged() -> None:
    node = DAG().add("a")
    with pytest.raises(TypeError, match="map"):
        list(node.result)
    with pytest.raises(TypeError, match="not known yet"):
        assert node.result


def test_kombus_json_writes_it_as_what_a_task_may_return() -> None:
    dag = DAG()
    dag.add("b", dag.add("a").result.part)
    assert json.loads(dumps(dag)) == {"$workflow": dag.spec()}


TYPED = """
from dure.typing import TaskOf
from dure.workflows import DAG

class Loaded(dict[str, list[int]]): ...

def check(load: TaskOf[[str], dict[str, list[int]]], total: TaskOf[[list[int]], int], twice: TaskOf[[int, str], bytes]) -> None:
    dag = DAG()
    loaded = dag.add(load, "x")
    {line}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('dag.add(total, loaded.result["items"])', None),
        ('reveal_type(dag.map(twice, loaded.result["items"], "x").result)', "list[bytes]"),
        ("dag.add(load, 5)", "No overload variant"),
        ("dag.add(total, loaded.result)", "No overload variant"),
        ("dag.add(load)", "No overload variant"),
        ('dag.map(twice, ["text"], "x")', "No overload variant"),
        ('loaded.set(needs=["x"])', "List item 0"),
    ],
)
def test_a_type_checker_sees_what_fits(line: str, complaint: str | None, tmp_path: Path) -> None:
    module = tmp_path / "typed.py"
    module.write_text(TYPED.replace("{line}", line))
    said, _, status = mypy.run(["--strict", "--follow-imports=silent", "--cache-dir=.mypy_cache/tests", str(module)])
    assert (status == 0) is (complaint is None or line.startswith("reveal_type")), said
    assert complaint is None or complaint.lower() in said.lower(), said
