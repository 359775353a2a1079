from collections.abc import Mapping
from typing import Any

import pytest

from dure.errors import InvalidSubmission
from dure.workflow import Kind, On
from dure.workflows.compile import Compiled, Step, compile_spec, expand, sub_workflow
from dure.workflows.spec import read_spec
from tests.unit.workflow_interpreter import Interpreter, ends_of


def task(name_: str, /, *args: Any, **more: Any) -> dict[str, Any]:
    return {"task": name_, "args": list(args), **more}


def result(name: str, *path: str | int) -> dict[str, Any]:
    return {"$result": name, "path": list(path)} if path else {"$result": name}


def compiled(spec: Any) -> Compiled:
    return compile_spec(read_spec(spec))


def steps(spec: Any) -> Mapping[str, Step]:
    return {step.name: step for step in compiled(spec).steps}


def needs(spec: Any) -> dict[str, dict[str, str]]:
    return {name: {need: on.value for need, on in step.needs.items()} for name, step in steps(spec).items()}


def told(name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if name == "fail":
        raise ValueError("no")
    return args[0] if name == "id" else [name, *args]


def run(spec: Any) -> Any:
    return Interpreter(told).result(compiled(spec))


def wrong(spec: Any) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(InvalidSubmission) as caught:
        compiled(spec)
    return {error.loc: error.message for error in caught.value.errors}


def test_a_chain_hands_each_result_on_unless_the_step_is_immutable() -> None:
    chain = {"chain": [task("a", 1), task("b", 2), task("c", 3, immutable=True)]}
    assert run(chain) == ["c", 3]
    assert run({"chain": chain["chain"][:2]}) == ["b", ["a", 1], 2]
    assert needs(chain) == {"0": {}, "1": {"0": "success"}, "2": {"1": "success"}}


def test_a_group_gets_the_result_before_it_in_each_member_and_gives_the_list() -> None:
    spec = {"chain": [task("a"), {"group": [task("b"), {"chain": [task("c"), task("d")]}]}]}
    assert run(spec) == [["b", ["a"]], ["d", ["c", ["a"]]]]
    assert list(steps(spec)) == ["0", "1.0", "1.1.0", "1.1.1"]


def test_a_group_within_a_group_is_a_list_within_the_list() -> None:
    assert run({"group": [task("a"), {"group": [task("b"), task("c")]}]}) == [["a"], [["b"], ["c"]]]


def test_a_chord_gives_its_body_the_list() -> None:
    spec = {"chord": {"header": [task("a"), task("b")], "body": {"chain": [task("c"), task("d")]}}}
    assert run(spec) == ["d", ["c", [["a"], ["b"]]]]
    assert list(steps(spec)) == ["0", "1", "body.0", "body.1"]


def test_many_that_need_many_are_joined_by_a_value() -> None:
    spec = {"chain": [{"group": [task("a"), task("b")]}, {"group": [task("c"), task("d")]}]}
    assert run(spec) == [["c", [["a"], ["b"]]], ["d", [["a"], ["b"]]]]
    made = steps(spec)
    assert made["0"].kind is Kind.VALUE
    assert (made["1.0"].needs, made["1.1"].needs) == ({"0": On.SUCCESS}, {"0": On.SUCCESS})


def test_one_that_needs_many_needs_them_itself() -> None:
    spec = {"chain": [{"group": [task("a"), task("b")]}, task("c")]}
    assert [step.kind for step in steps(spec).values()] == [Kind.TASK] * 3


@pytest.mark.parametrize(("spec", "is_"), [({"group": []}, []), ({"chain": [{"group": []}, task("a")]}, ["a", []])])
def test_an_empty_group_gives_an_empty_list(spec: Any, is_: Any) -> None:
    assert run(spec) == is_


def test_an_empty_chord_header_and_an_empty_map_give_empty_lists() -> None:
    assert run({"chord": {"header": [], "body": task("a")}}) == ["a", []]
    assert run({"map": {"over": [], "task": "a"}}) == []


def test_nodes_refer_to_one_another_in_any_order_and_give_what_nobody_needs() -> None:
    spec = {
        "nodes": {
            "c": task("c", result("b", 0), {"deep": [result("a")]}),
            "b": task("b", result("a")),
            "a": task("a"),
            "d": task("d", needs=["a"]),
        }
    }
    assert run(spec) == {"c": ["c", "b", {"deep": [["a"]]}], "d": ["d"]}


def test_nodes_may_say_their_result() -> None:
    assert run({"nodes": {"a": task("a"), "b": task("b")}, "result": [result("b", 0), 5, result("a")]}) == [
        "b",
        5,
        ["a"],
    ]


def test_nodes_in_a_chain_get_the_result_before_where_nothing_else_comes_before() -> None:
    spec = {"chain": [task("z"), {"nodes": {"a": task("a"), "b": task("b", result("a"))}}, task("c")]}
    assert run(spec) == ["c", {"b": ["b", ["a", ["z"]]]}]


def test_a_reference_to_a_form_of_several_steps_is_to_its_result() -> None:
    spec = {
        "nodes": {
            "c": {"chain": [task("x"), task("y")]},
            "g": {"group": [task("p"), {"nodes": {"q": task("q")}}]},
            "all": task("all", result("c"), result("g", 1, "q", 0)),
        },
    }
    assert run(spec) == {"all": ["all", ["y", ["x"]], "q"]}
    assert needs(spec)["all"] == {"c.1": "success", "g.1.q": "success"}


def test_what_needs_a_form_waits_for_its_ends_and_its_own_beginnings_wait() -> None:
    spec = {
        "nodes": {
            "a": {"group": [task("x"), {"chain": [task("y"), task("z")]}]},
            "b": {"chain": [task("p"), task("q")], "needs": ["a"]},
        }
    }
    assert needs(spec)["b.0"] == {"a.0": "success", "a.1.1": "success"}
    assert needs(spec)["b.1"] == {"b.0": "success"}


def test_a_named_step_within_a_form_can_be_referred_to_from_elsewhere() -> None:
    spec = {
        "nodes": {
            "x": {"chain": [task("a", name="first"), task("b")]},
            "y": {"chain": [task("c"), task("d", result("first"), immutable=True)]},
        }
    }
    assert run(spec)["y"] == ["d", ["a"]]


def test_an_inner_name_goes_before_an_outer_one() -> None:
    spec = {"nodes": {"a": task("out"), "in": {"nodes": {"a": task("in"), "b": task("b", result("a"))}}}}
    assert run(spec)["in"] == {"b": ["b", ["in"]]}


def test_a_quoted_argument_is_taken_as_it_is() -> None:
    assert run(task("id", {"$literal": {"$result": "x"}})) == {"$result": "x"}


def test_continue_lets_what_follows_run_with_null() -> None:
    spec = {"chain": [task("fail", on_failure="continue"), task("b", 1)]}
    assert run(spec) == ["b", None, 1]
    assert needs(spec)["1"] == {"0": "end"}


def test_a_handler_runs_where_its_need_failed_and_is_skipped_where_it_did_not() -> None:
    spec = {"nodes": {"a": task("{}"), "h": task("id", {"$error": "a", "path": ["message"]})}}
    for name, state in (("fail", "SUCCESS"), ("ok", "REVOKED")):
        spec["nodes"]["a"] = task(name)
        assert ends_of(compiled(spec), told)["h"].state == state
    assert compiled(spec).output == {"a": result("a")}  # what only runs on failure is no result


def test_what_refers_to_result_and_error_runs_either_way() -> None:
    spec = {"nodes": {"a": task("fail"), "h": task("h", result("a"), {"$error": "a", "path": ["message"]})}}
    assert run(spec) == {"h": ["h", None, "no"]}


def test_a_handler_of_a_form_of_several_steps_is_told_of_any_of_them() -> None:
    spec = {"nodes": {"g": {"group": [task("a"), task("fail")]}, "h": task("h", {"$error": "g", "path": ["state"]})}}
    assert ends_of(compiled(spec), told)["h"].result == ["h", "FAILURE"]


def test_needs_may_say_on_which_end() -> None:
    spec = {"nodes": {"a": task("fail"), "b": task("b", needs={"a": "end"}), "c": task("c", needs={"a": "failure"})}}
    ends = ends_of(compiled(spec), told)
    assert (ends["b"].state, ends["c"].state) == ("SUCCESS", "SUCCESS")


def test_linked_steps_are_told_the_result_or_the_id_of_what_failed() -> None:
    spec = {"chain": [task("a", link=[task("l")], link_error=[task("e")]), task("fail", link_error=[task("e")])]}
    ends = ends_of(compiled(spec), told)
    assert ends["0.link.0"].result == ["l", ["a"]]
    assert ends["0.error.0"].state == "REVOKED"
    assert ends["1.error.0"].result == ["e", "id of 1"]


def test_what_failed_upstream_does_not_call_the_errbacks_of_those_after_it() -> None:
    spec = {"chain": [task("fail", link_error=[task("e")]), task("b", link_error=[task("e")])]}
    ends = ends_of(compiled(spec), told)
    assert (ends["0.error.0"].state, ends["1.error.0"].state) == ("SUCCESS", "REVOKED")


def test_a_wait_may_stand_anywhere_and_feeds_what_follows() -> None:
    assert run({"chain": [task("a"), {"wait": {"timeout": 5}}, task("b")]}) == ["b", "signal of 1"]
    assert steps({"wait": {"timeout": 5}})["0"].expires_in == 5


def test_a_map_goes_over_what_is_known_only_then() -> None:
    assert run({"chain": [task("id", [1, 2]), {"map": {"task": "b", "args": ["x"]}}]}) == [["b", 1, "x"], ["b", 2, "x"]]


def test_an_item_goes_where_it_is_said() -> None:
    items = [{"n": 1}, {"n": 2}]
    spec = {"map": {"over": items, "task": "b", "args": ["x", {"$item": True, "path": ["n"]}]}}
    assert run(spec) == [["b", "x", 1], ["b", "x", 2]]


def test_an_item_that_looks_like_a_reference_is_data() -> None:
    assert run({"map": {"over": {"$literal": [{"$result": "x"}]}, "task": "id"}}) == [{"$result": "x"}]


def test_the_body_of_a_map_may_be_any_form_and_refer_to_what_is_outside() -> None:
    spec = {
        "nodes": {
            "out": task("out"),
            "g": {"group": [task("p"), task("q")]},
            "m": {
                "map": {
                    "over": [1, 2],
                    "do": {
                        "chain": [
                            task("a", result("out"), name="first"),
                            {"map": {"over": [3, 4], "task": "b", "args": [result("g", 0), result("first", 1)]}},
                            task("c", needs=["out"]),
                        ]
                    },
                }
            },
        }
    }
    inner = [["c", [["b", 3, ["p"], number], ["b", 4, ["p"], number]]] for number in (1, 2)]
    assert run(spec) == {"m": inner}
    assert needs(spec)["m"] == {"out": "success", "g.0": "success", "g.1": "success"}


def test_the_steps_of_a_map_are_called_by_item() -> None:
    body = compiled({"nodes": {"a": task("a"), "m": {"map": {"over": [], "do": {"chain": [task("b"), task("c")]}}}}})
    made = expand(body.steps[1].body, ["x", "y"], "m")
    assert [step.name for step in made.steps] == ["m.0.0", "m.0.1", "m.1.0", "m.1.1"]
    assert made.output == [result("m.0.1"), result("m.1.1")]
    assert set(made.ends) == {"m.0.1", "m.1.1"}


def test_an_item_that_lacks_a_part_is_told() -> None:
    body = steps({"map": {"over": [], "task": "a", "args": [{"$item": True, "path": ["n"]}]}})["0"].body
    with pytest.raises(InvalidSubmission, match="no \\['n'\\]"):
        expand(body, [{"n": 1}, {"m": 1}], "0")


def test_a_sub_workflow_has_names_below_its_node() -> None:
    spec = read_spec({"chain": [task("a"), task("b")]})
    assert [step.name for step in compile_spec(spec, prefix="x").steps] == ["x.0", "x.1"]
    assert compile_spec(read_spec(task("a")), prefix="x").steps[0].name == "x.0"
    assert compile_spec(read_spec({"group": []}), prefix="x").steps[0].name == "x.0"


@pytest.mark.parametrize(
    "value", [None, 5, {"$workflow": {}, "more": 1}, {"task": "a", "args": []}, [{"$workflow": {}}]]
)
def test_other_results_are_no_workflows(value: Any) -> None:
    assert sub_workflow(value) is None


def test_a_workflow_and_a_signature_are_known_in_a_result() -> None:
    signature = {"task": "a", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    assert sub_workflow({"$workflow": {"task": "a"}}) == {"task": "a"}
    assert read_spec(sub_workflow(signature | {"chord_size": None})).task == "a"


@pytest.mark.parametrize(
    ("spec", "where", "why"),
    [
        ({"nodes": {"a": task("x", result("b"))}}, ("nodes", "a", "args", 0, "$result"), "no node 'b'"),
        (
            {"nodes": {"load": task("x"), "b": task("x", result("laod"))}},
            ("nodes", "b", "args", 0, "$result"),
            "mean 'load'",
        ),
        ({"nodes": {"a": task("x", needs=["b"])}}, ("nodes", "a", "needs", 0), "no node 'b'"),
        ({"nodes": {"a": task("x", needs={"b": "end"})}}, ("nodes", "a", "needs", "b"), "no node 'b'"),
        ({"nodes": {"a": task("x")}, "result": result("b")}, ("result", "$result"), "no node 'b'"),
        (
            {"nodes": {"a": task("x"), "b": {"nodes": {"c": task("y")}, "result": result("a")}}},
            ("nodes", "b", "result", "$result"),
            "no node 'a'",
        ),
        ({"nodes": {"a": task("x", result("a"))}}, ("nodes", "a"), "a -> a"),
        ({"nodes": {"a": task("x", result("b")), "b": task("x", needs=["a"])}}, ("nodes", "a"), "a -> b -> a"),
        ({"nodes": {"a": {"chain": [task("x"), task("y", result("a"))]}}}, ("nodes", "a", "chain", 1), "a.1 -> a.1"),
        ({"chain": [task("a", name="n"), task("b", name="n")]}, ("chain", 1, "name"), "chain.0"),
        ({"chain": [task("a", name="1"), task("b")]}, ("chain", 1), "'1'"),
        ({"nodes": {"a": task("x", name="b")}}, ("nodes", "a", "name"), "'a'"),
        ({"chain": [task("a", timeout=3)]}, ("chain", 0, "timeout"), "time_limit"),
        (task("a", {"$item": True}), ("args", 0), "body of a map"),
        (task("a", {"$result": 5}), ("args", 0, "$result"), "name of a node"),
        (task("a", [{"$result": "a", "else": 1}]), ("args", 0, 0, "else"), "$literal"),
        (task("a", {"$result": "a", "path": "x"}), ("args", 0, "path"), "list of names"),
        (task("a", {"$result": "a", "path": [True]}), ("args", 0, "path"), "list of names"),
        (task("a", {"$error": "a", "path": ["text"]}), ("args", 0, "path", 0), "message"),
        (task("a", kwargs={"$result": "a"}), ("kwargs",), "one by one"),
        ({"map": {"task": "a"}}, ("map", "over"), "over which list"),
        ({"map": {"over": [], "task": "a", "args": [result("b")]}}, ("map", "args", 0, "$result"), "no node 'b'"),
        (
            {"map": {"over": [], "do": {"chain": [task("a", result("b"))]}}},
            ("map", "do", "chain", 0, "args", 0, "$result"),
            "",
        ),
        (
            {"nodes": {"g": {"group": [task("a"), task("b")]}, "c": task("c", result("g", 2))}},
            ("nodes", "c", "args", 0),
            "a list of 2",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(spec: Any, where: tuple[str | int, ...], why: str) -> None:
    found = wrong(spec)
    assert list(found) == [where]
    assert why in found[where]


def test_all_that_is_wrong_is_told_at_once() -> None:
    spec = {"nodes": {"a": task("x", result("p")), "b": task("x", needs=["q"]), "c": task("x", timeout=1)}}
    assert len(wrong(spec)) == 3


def test_arguments_nested_too_deep_are_refused() -> None:
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    assert "$literal" in next(iter(wrong(task("a", deep)).values()))
    compiled(task("a", {"$literal": deep}))


def test_ten_thousand_steps_in_a_row_and_forms_a_hundred_deep_are_compiled() -> None:
    assert len(compiled({"chain": [task("a")] * 10_000}).steps) == 10_000
    nodes = {f"n{i}": task("a", *([result(f"n{i + 1}")] if i < 9_999 else [])) for i in range(10_000)}
    assert len(compiled({"nodes": nodes}).steps) == 10_000
    empty = {f"n{i}": {"group": [], "needs": [f"n{i + 1}"] if i < 1_999 else []} for i in range(2_000)}
    assert len(compiled({"nodes": empty}).steps) == 2_000
    form: Any = task("a")
    for _ in range(49):
        form = {"chain": [{"group": [form, task("b")]}]}
    assert len(compiled(form).steps) == 50


def test_options_are_moments_or_seconds_from_when_the_needs_are_met() -> None:
    relative = steps(task("a", delay=3, expires=9, queue="q", priority=2, tags=["t", "t"], retries=1, time_limit=4))[
        "0"
    ]
    assert (relative.delay, relative.expires_in, relative.eta, relative.expires) == (3, 9, None, None)
    assert (relative.queue, relative.priority, relative.tags, relative.retries) == ("q", 2, ("t",), 1)
    absolute = steps(task("a", eta="1970-01-01T00:01:00Z", expires="1970-01-01T00:02:00Z"))["0"]
    assert (absolute.delay, absolute.expires_in, absolute.eta, absolute.expires) == (None, None, 60, 120)
