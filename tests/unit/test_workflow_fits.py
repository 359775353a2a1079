from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dure.workflows.fits import item_schema, mismatch, part_schema

POINT = {
    "$defs": {"point": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "points": {"type": "array", "items": {"$ref": "#/$defs/point"}},
        "best": {"anyOf": [{"$ref": "#/$defs/point"}, {"type": "null"}]},
    },
    "required": ["name"],
    "additionalProperties": False,
}
NUMBER, TEXT, NULL = {"type": "number"}, {"type": "string"}, {"type": "null"}


@pytest.mark.parametrize(
    ("result", "path", "argument"),
    [
        ({"type": "integer"}, [], NUMBER),
        (NUMBER, [], {"type": "integer"}),
        ({"anyOf": [TEXT, NULL]}, [], {"anyOf": [NUMBER, NULL]}),
        ({"type": ["string", "null"]}, [], NULL),
        ({"type": "array", "items": TEXT}, [], {"type": "array", "items": NUMBER}),  # both have the empty list
        ({"enum": ["a", "b"]}, [], {"enum": ["b", "c"]}),
        ({"const": 1}, [], {"const": 1.0}),
        (True, ["x", 3], TEXT),
        ({}, [], False | True),
        (POINT, ["points", 3, "x"], NUMBER),
        (POINT, ["best"], NULL),
        (POINT, ["points", -1], POINT["$defs"]["point"]),  # type: ignore[index]
        ({"$ref": "https://example.com/schema"}, [], TEXT),
        ({"type": "object"}, ["any"], TEXT),
    ],
)
def test_what_may_fit_passes(result: Any, path: list[str | int], argument: Any) -> None:
    assert mismatch(result, path, argument) is None


@pytest.mark.parametrize(
    ("result", "path", "argument", "why"),
    [
        (TEXT, [], NUMBER, "gives a string where a number is wanted"),
        ({"type": "boolean"}, [], NUMBER, "gives a boolean where a number is wanted"),
        ({"const": True}, [], {"const": 1}, "gives a boolean where a number is wanted"),
        ({"const": 1.5}, [], {"type": "integer"}, "1.5 is no whole number"),
        ({"anyOf": [TEXT, NULL]}, [], {"anyOf": [NUMBER, {"type": "array"}]}, "string"),
        ({"enum": ["a"]}, [], {"enum": ["b", "c"]}, "gives 'a' where"),
        ({"allOf": [TEXT]}, [], NULL, "gives a string where null is wanted"),
        (POINT, ["pints"], True, "has no ['pints']"),
        (POINT, ["name", "x"], True, "has no ['name']['x']"),
        (POINT, ["name"], NUMBER, "gives a string"),
        (POINT, ["points", 0, "x"], TEXT, "gives a number"),
        (POINT, ["points"], POINT, "gives a list where an object is wanted"),
        (POINT, [], {"type": "object", "required": ["age"]}, "without 'age'"),
        ({"type": "object", "required": ["age"]}, [], POINT, "gives 'age', which is not wanted"),
        ({"type": "array", "minItems": 3}, [], {"type": "array", "maxItems": 2}, "another length"),
        ({"const": [1, "a"]}, [], {"type": "array", "items": NUMBER}, "[1] gives a string"),
        ({"const": {"a": {"b": 1}}}, [], {"type": "object", "properties": {"a": {"properties": {"b": TEXT}}}}, "['a']"),
    ],
)
def test_what_cannot_fit_is_told_with_the_reason(result: Any, path: list[str | int], argument: Any, why: str) -> None:
    assert why in (mismatch(result, path, argument) or "")


def test_a_schema_that_refers_to_itself_comes_to_an_end() -> None:
    tree = {
        "$defs": {"t": {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "array", "items": {"$ref": "#/$defs/t"}}, TEXT]}},
        "$ref": "#/$defs/t",
    }
    assert mismatch(tree, [0, 0, 0], tree) is None


def test_the_items_of_a_list_and_the_parts_of_an_object_have_schemas_of_their_own() -> None:
    points = part_schema(POINT, ["points"])
    assert mismatch(item_schema(points), ["x"], TEXT) == "gives a number where a string is wanted"


scalars = st.one_of(st.none(), st.booleans(), st.integers(-1, 2), st.sampled_from([0.5, 1.0, "", "a"]))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
KINDS = ["null", "boolean", "integer", "number", "string", "array", "object"]


def schemas(*more: Any) -> st.SearchStrategy[Any]:
    simple = st.one_of(
        st.sampled_from([True, False, {}, *more]),
        st.sampled_from(KINDS).map(lambda kind: {"type": kind}),
        st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True).map(lambda kinds: {"type": kinds}),
        values.map(lambda value: {"const": value}),
        st.lists(values, min_size=1, max_size=3).map(lambda some: {"enum": some}),
    )

    def composed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        some = st.lists(inner, min_size=1, max_size=2)
        mapping = {
            "type": st.just("object"),
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "required": st.lists(st.sampled_from("ab"), unique=True, max_size=2),
            "additionalProperties": inner,
            "patternProperties": st.fixed_dictionaries({"a": inner}),
        }
        sequence = {
            "type": st.just("array"),
            "items": inner,
            "prefixItems": some,
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(0, 3),
        }
        choice = {"anyOf": some, "oneOf": some, "allOf": some, "type": st.sampled_from(KINDS)}
        return st.one_of(
            st.fixed_dictionaries({}, optional=mapping),
            st.fixed_dictionaries({}, optional=sequence),
            st.fixed_dictionaries({}, optional=choice),
        )

    return st.recursive(simple, composed, max_leaves=5)


def documents() -> st.SearchStrategy[Any]:
    def document(schema: Any, definition: Any) -> Any:
        return {**schema, "$defs": {"d": definition}} if isinstance(schema, dict) else schema

    return st.builds(document, schemas({"$ref": "#/$defs/d"}), schemas())


def at(value: Any, path: list[str | int]) -> Any:
    for step in path:
        assume(isinstance(value, list if isinstance(step, int) else dict))
        assume(step in value if isinstance(value, dict) else -len(value) <= step < len(value))
        value = value[step]
    return value


@given(documents(), documents(), values, st.lists(st.sampled_from(["a", "b", 0, 1, -1]), max_size=2))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_where_a_value_fits_both_schemas_nothing_is_told(
    result: Any, argument: Any, value: Any, path: list[str | int]
) -> None:
    part = at(value, path)
    assume(jsonschema_rs.is_valid(result, value) and jsonschema_rs.is_valid(argument, part))
    assert mismatch(result, path, argument) is None
