"""Celery's canvas becomes steps that do what Celery does: random canvases, run by Celery and by the compiled steps."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.canvas import Signature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dure.errors import InvalidSubmission
from dure.workflows.canvas import spec_of
from dure.workflows.compile import Compiled, compile_spec
from dure.workflows.spec import read_spec
from tests.unit.workflow_interpreter import Interpreter

Call = tuple[str, str]
calls: list[Call] = []
app = Celery("canvas", broker="memory://", backend="cache+memory://", set_as_current=False)
app.conf.update(task_always_eager=True, task_eager_propagates=False)


def done(name: str, args: Any, kwargs: dict[str, Any]) -> Any:
    value = [name, list(args), dict(sorted(kwargs.items()))]
    # A linked task gets the id of the one that failed, which is not the same in both.
    calls.append((name, "" if name == "tell" else json.dumps(value, sort_keys=True)))
    if name == "boom":
        raise ValueError("boom")
    return value


def task(name: str) -> Any:
    @app.task(name=name)
    def run(*args: Any, **kwargs: Any) -> Any:
        return done(name, args, kwargs)

    return run


one, two, boom = task("one"), task("two"), task("boom")


@app.task(name="tell")
def tell(failed: str) -> None:
    done("tell", (failed,), {})


def run(name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if name in ("celery.map", "celery.starmap"):
        inner = kwargs["task"]
        return [
            done(inner["task"], [*(item if name == "celery.starmap" else [item]), *inner["args"]], inner["kwargs"])
            for item in kwargs["it"]
        ]
    return done(name, args, kwargs)


def compiled(signature: Any) -> Compiled:
    return compile_spec(read_spec(spec_of(json.loads(json.dumps(signature)))))


def by_celery(canvas: Signature) -> tuple[Any, list[Call]]:
    calls.clear()
    try:
        result = canvas.apply_async().get()
    except ValueError:
        result = "failed"
    return json.loads(json.dumps(result)), sorted(calls)


def by_steps(canvas: Signature) -> tuple[Any, list[Call]]:
    calls.clear()
    steps = compiled(canvas)
    interpreter = Interpreter(run)
    result = interpreter.result(steps)
    failed = any(interpreter.ends[name].state != "SUCCESS" for name in steps.ends)
    return "failed" if failed else result, sorted(calls)


small = st.integers(0, 9)


@st.composite
def tasks(draw: st.DrawFn, *, failing: bool = False) -> Signature:
    chosen = draw(st.sampled_from([one, two, boom] if failing else [one, two]))
    kwargs = draw(st.dictionaries(st.sampled_from("ab"), small, max_size=2))
    signature = chosen.s(*draw(st.lists(small, max_size=2)), **kwargs)
    if draw(st.booleans()):
        signature.set_immutable(True)
    if draw(st.integers(0, 3)) == 0:
        signature.link(draw(st.sampled_from([one.s(8), two.si(9)])))
    if draw(st.integers(0, 3)) == 0:
        signature.link_error(tell.s())
    return signature


def canvases(leaves: st.SearchStrategy[Signature], *, chords: bool = True) -> st.SearchStrategy[Any]:
    def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        some = st.lists(inner, min_size=1, max_size=3)
        # Celery's eager mode leaves a group of one in a chain a group, which its workers do not.
        more = st.lists(inner, min_size=2, max_size=3)
        composed = [some.map(lambda parts: chain(*parts)), more.map(group)]
        if chords:
            composed += [
                st.tuples(some, inner).map(lambda parts: chord(parts[0], parts[1])),
                st.tuples(inner, inner).map(lambda parts: parts[0] | parts[1]),
            ]
        return st.one_of(composed)

    return st.recursive(leaves, around, max_leaves=8)


@given(canvases(tasks()))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_steps_of_a_canvas_call_what_celery_calls_and_return_what_it_returns(canvas: Signature) -> None:
    assert by_steps(canvas) == by_celery(canvas)


@given(st.lists(tasks(failing=True), min_size=1, max_size=4), st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_linked_to_errors_is_called_as_often_as_by_celery(
    steps: list[Signature], side_by_side: bool, whole: bool
) -> None:
    canvas = group(steps) if side_by_side else chain(*steps)
    if whole:
        canvas.link_error(tell.s())
    assert by_steps(canvas) == by_celery(canvas)


def test_a_group_of_one_in_a_chain_is_its_member_as_on_celerys_workers() -> None:
    nested = {**chain(one.s(1), two.s()), "kwargs": {"tasks": [one.s(1), group([two.s()])]}}
    assert spec_of(nested) == {"chain": [{"task": "one", "args": [1]}, {"task": "two"}]}


def test_a_chord_of_one_gets_a_list_all_the_same() -> None:
    assert by_steps(chord([one.s(1)], two.s()))[0] == ["two", [[["one", [1], {}]]], {}]


def test_groups_and_tasks_in_turn_become_one_flat_chain_however_many() -> None:
    canvas = one.s(1)
    for _ in range(60):
        canvas = canvas | group(one.s(), two.s()) | two.s()
    assert len(spec_of(canvas)["chain"]) == 121


def test_an_empty_chord_header_gives_its_body_an_empty_list() -> None:
    assert by_steps(chord([], two.s(3)))[0] == ["two", [[], 3], {}]


def test_an_empty_group_is_passed_over_in_a_chain_and_alone_is_an_empty_list() -> None:
    within = {**chain(one.s(1), two.s()), "kwargs": {"tasks": [one.s(1), group([]), two.s()]}}
    assert spec_of(within) == {"chain": [{"task": "one", "args": [1]}, {"task": "two"}]}
    assert by_steps(group([]))[0] == []


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(InvalidSubmission, match="an empty chain"):
        spec_of({**chain(one.s(), two.s()), "kwargs": {"tasks": []}})


def test_map_and_starmap_are_one_job_of_celerys_own_tasks() -> None:
    spec = spec_of(one.map(number for number in (1, 2)))
    assert (spec["task"], spec["kwargs"]["it"], spec["kwargs"]["task"]["task"]) == ("celery.map", [1, 2], "one")
    assert by_steps(one.starmap([(1, 2), (3, 4)]))[0] == [["one", [1, 2], {}], ["one", [3, 4], {}]]


def test_chunks_are_a_group_of_starmaps() -> None:
    parts = spec_of(one.chunks([(1, 1), (2, 2), (3, 3)], 2))["group"]
    assert [part["task"] for part in parts] == ["celery.starmap", "celery.starmap"]
    assert [part["kwargs"]["it"] for part in parts] == [[(1, 1), (2, 2)], [(3, 3)]]


@pytest.mark.parametrize(
    ("option", "becomes"),
    [
        ({"queue": "q"}, {"queue": "q"}),
        ({"countdown": 3}, {"delay": 3}),
        ({"countdown": -3}, {"delay": 0}),
        ({"countdown": 3, "eta": datetime(2030, 1, 1, tzinfo=UTC)}, {"delay": 3}),
        ({"eta": datetime(2030, 1, 1)}, {"eta": "2030-01-01T00:00:00+00:00"}),  # as Celery takes it
        ({"eta": "2030-01-01T00:00:00+09:00"}, {"eta": "2030-01-01T00:00:00+09:00"}),
        ({"expires": 9.5}, {"expires": 9.5}),
        ({"priority": 4, "time_limit": 5}, {"priority": 4, "time_limit": 5}),
        ({"serializer": "json", "ignore_result": True, "retry": False}, {}),
        (
            {"name": "n", "tags": ["x"], "on_failure": "continue"},
            {"name": "n", "tags": ["x"], "on_failure": "continue"},
        ),
        ({"task_id": "1", "reply_to": "2", "group_id": "3"}, {}),
    ],
)
def test_celerys_options_become_those_of_a_step(option: dict[str, Any], becomes: dict[str, Any]) -> None:
    form = spec_of(one.s().set(**option))
    assert form == {"task": "one", **becomes}
    read_spec(form)


@pytest.mark.parametrize(
    "option",
    [
        "routing_key",
        "exchange",
        "headers",
        "soft_time_limit",
        "task_id",
        "serializer",
        "login_method",
        "stamped_headers",
    ],
)
def test_an_option_that_dure_lacks_is_refused_by_its_name(option: str) -> None:
    with pytest.raises(InvalidSubmission) as caught:
        spec_of(chain(one.s(1), two.s().set(**{option: ["x"]})))
    assert [error.loc for error in caught.value.errors] == [("kwargs", "tasks", 1, "options", option)]


def test_the_options_of_a_group_and_a_chord_are_put_over_those_of_their_members() -> None:
    members = spec_of(group(one.s().set(queue="a"), two.s()).set(queue="b"))["group"]
    assert [member["queue"] for member in members] == ["b", "b"]
    header, body = spec_of(chord([one.s(1)], two.s()).set(queue="c", countdown=2))["chain"]
    assert header["group"] == [{"task": "one", "args": [1], "queue": "c", "delay": 2}]
    assert body == {"task": "two", "queue": "c"}


def test_the_options_of_a_chain_are_those_of_its_first_task() -> None:
    assert [step.get("queue") for step in spec_of(chain(one.s(), two.s()).set(queue="q"))["chain"]] == ["q", None]


def test_the_errback_of_a_chord_is_its_bodys_and_is_told_of_a_header_that_failed() -> None:
    canvas = chord([boom.s(), one.s()], two.s())
    canvas.body.link_error(tell.s())
    assert [name for name, _ in by_steps(canvas)[1]] == ["boom", "one", "tell"]


def test_a_name_of_a_group_is_the_groups_own() -> None:
    assert spec_of(group(one.s(), two.s()).set(name="both")) == {
        "group": [{"task": "one"}, {"task": "two"}],
        "name": "both",
    }


def test_arguments_of_a_chain_and_a_chord_go_before_those_of_their_first_tasks() -> None:
    whole = {**chain(one.s(1), two.s()), "args": [9]}
    assert spec_of(whole)["chain"][0] == {"task": "one", "args": [9, 1]}
    header = spec_of(chord([one.s(1), one.si(2)], two.s()).clone(args=(9,)))["chain"][0]["group"]
    assert [member["args"] for member in header] == [[9, 1], [2]]
