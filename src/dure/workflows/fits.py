"""Whether what one task returns can be another's argument: JSON schemas (draft 2020-12) held against each other.

Only what is certain is told: that there is no value at all that both schemas allow. What is not understood here
allows everything, so a pair may pass that does not fit, but none is told of that does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_DEPTH = 16
_STEPS = 2_000
_KINDS = {"integer": "number", "number": "number"}
_PLURAL = {"null": "null", "boolean": "a boolean", "number": "a number", "string": "a string"}
_ARTICLES = _PLURAL | {"array": "a list", "object": "an object"}


class _Schema(NamedTuple):
    """A schema, and the document in which its `$ref`s are looked up."""

    node: Any
    root: Any


class _Effort:
    """How deep is looked, and how much in all: schemas may refer to themselves, and alternatives multiply."""

    def __init__(self, depth: int = _DEPTH, steps: list[int] | None = None) -> None:
        self._depth = depth
        self._steps = [_STEPS] if steps is None else steps

    def deeper(self) -> _Effort:
        return _Effort(self._depth - 1, self._steps)

    def is_over(self) -> bool:
        self._steps[0] -= 1
        return self._depth <= 0 or self._steps[0] < 0


def mismatch(result: Any, path: Sequence[str | int], argument: Any) -> str | None:
    """Why no value at `path` in a result fits the argument; None where one may."""
    effort = _Effort()
    at: list[_Schema] = [_Schema(result, result)]
    for index, step in enumerate(path):
        at = [below for schema in at for below in _part(schema, step, effort)]
        if not at:
            return f"the result has no {''.join(f'[{part!r}]' for part in path[: index + 1])}"
    reasons = [_apart(schema, _Schema(argument, argument), effort) for schema in at]
    return reasons[0] if all(reasons) else None


def item_schema(schema: Any) -> Any:
    """What the items of a list of this schema are."""
    return {"anyOf": [_document(part) for part in _part(_Schema(schema, schema), None, _Effort())]}


def part_schema(schema: Any, path: Sequence[str | int]) -> Any:
    effort = _Effort()
    at = [_Schema(schema, schema)]
    for step in path:
        at = [below for one in at for below in _part(one, step, effort)]
    return {"anyOf": [_document(part) for part in at]}


def _document(schema: _Schema) -> Any:
    """A schema that can stand in another document."""
    if schema.node is schema.root or not isinstance(schema.node, dict):
        return {"$id": "urn:part", **schema.node} if isinstance(schema.node, dict) else schema.node
    defs = schema.root.get("$defs") if isinstance(schema.root, dict) else None
    return {**schema.node, "$id": "urn:part"} | ({"$defs": defs} if defs else {})


def _part(schema: _Schema, step: str | int | None, effort: _Effort) -> list[_Schema]:
    """What the values at `step` may be (None: any item of a list): one of these. Empty where none has such a part."""
    if effort.is_over():
        return [_Schema(True, True)]
    found = [_Schema(True, True)]
    for one in _conjuncts(schema, effort):
        branches = _branches(one)
        parts = (
            [_own_part(one, step)]
            if branches is None
            else [_part(branch, step, effort.deeper()) for branch in branches]
        )
        possible = [part for some in parts for part in some]
        if not possible:
            return []
        # Each of the conjuncts bounds the values; the first that says something is taken.
        if any(part.node is True for part in found):
            found = possible
    return found


def _own_part(schema: _Schema, step: str | int | None) -> list[_Schema]:
    node = schema.node
    if not isinstance(node, dict):
        return [] if node is False else [_Schema(True, True)]
    kinds = _kinds(node)
    if ("object" if isinstance(step, str) else "array") not in kinds:
        return []
    return _property(schema, step) if isinstance(step, str) else _item(schema, step)


def _property(schema: _Schema, name: str) -> list[_Schema]:
    node, root = schema
    if name in _mapping(node.get("properties")):
        return [_Schema(node["properties"][name], root)]
    if node.get("patternProperties"):
        return [_Schema(True, True)]
    rest = node.get("additionalProperties", True)
    return [] if rest is False else [_Schema(rest, root)]


def _item(schema: _Schema, step: int | None) -> list[_Schema]:
    node, root = schema
    first = _sequence(node.get("prefixItems"))
    rest = node.get("items", True)
    if step is None or step < 0:
        return [_Schema(one, root) for one in [*first, *([] if rest is False else [rest])]]
    if step < len(first):
        return [_Schema(first[step], root)]
    most = node.get("maxItems")
    if rest is False or (isinstance(most, int) and step >= most):
        return []
    return [_Schema(rest, root)]


def _apart(result: _Schema, argument: _Schema, effort: _Effort) -> str | None:
    """Why no value is allowed by both."""
    if effort.is_over():
        return None
    mine, theirs = list(_conjuncts(result, effort)), list(_conjuncts(argument, effort))
    for one in mine:
        for other in theirs:
            if reason := _pair(one, other, effort):
                return reason
    return None


def _pair(one: _Schema, other: _Schema, effort: _Effort) -> str | None:
    for schema, swapped in ((one, False), (other, True)):
        branches = _branches(schema)
        if branches is not None:
            reasons = [
                _apart(one, branch, effort.deeper()) if swapped else _apart(branch, other, effort.deeper())
                for branch in branches
            ]
            if not reasons:
                return "is never there"
            return reasons[0] if all(reasons) else None
    return _plain_apart(one, other, effort)


def _plain_apart(one: _Schema, other: _Schema, effort: _Effort) -> str | None:
    """Of two schemas without alternatives."""
    if not isinstance(one.node, dict) or not isinstance(other.node, dict):
        return "nothing is allowed there" if one.node is False or other.node is False else None
    mine, theirs = _kinds(one.node), _kinds(other.node)
    common = mine & theirs
    if not common:
        return f"gives {_told(mine)} where {_told(theirs)} is wanted"
    if "const" in one.node and "const" in other.node and common <= _PLURAL.keys():
        same = _same(one.node["const"], other.node["const"])
        return None if same else f"gives {one.node['const']!r} where {other.node['const']!r} is wanted"
    reasons = [_apart_as(kind, one, other, effort) for kind in sorted(common)]
    return reasons[0] if all(reasons) else None


def _apart_as(kind: str, one: _Schema, other: _Schema, effort: _Effort) -> str | None:
    if kind == "number":
        for schema, against in ((one, other), (other, one)):
            if against.node.get("type") == "integer" and _is_fraction(schema.node.get("const")):
                return f"{schema.node['const']!r} is no whole number"
    if kind == "array":
        return _lists_apart(one, other, effort)
    if kind == "object":
        return _objects_apart(one, other, effort)
    return None


def _lists_apart(one: _Schema, other: _Schema, effort: _Effort) -> str | None:
    (least, most), (their_least, their_most) = _length(one.node), _length(other.node)
    if most < their_least or their_most < least:
        return "gives a list of another length than is wanted"
    for index in range(min(int(max(least, their_least)), 1000)):
        mine, theirs = _own_part(one, index), _own_part(other, index)
        if mine and theirs and (reason := _apart(mine[0], theirs[0], effort.deeper())):
            return f"[{index}] {reason}"
    return None


def _objects_apart(one: _Schema, other: _Schema, effort: _Effort) -> str | None:
    for name in sorted(_required(one.node) | _required(other.node)):
        mine, theirs = _own_part(one, name), _own_part(other, name)
        if not mine or not theirs:
            return f"gives an object without {name!r}" if not mine else f"gives {name!r}, which is not wanted"
        if reason := _apart(mine[0], theirs[0], effort.deeper()):
            return f"[{name!r}] {reason}"
    return None


def _conjuncts(schema: _Schema, effort: _Effort) -> Iterator[_Schema]:
    """Schemas that a value has to satisfy, each of them."""
    pending = [(schema, effort)]
    while pending:
        (node, root), left = pending.pop(0)
        if left.is_over():
            continue
        if not isinstance(node, dict):
            yield _Schema(node, root)
            continue
        if "$id" in node:
            root = node
        yield _Schema(node, root)
        left = left.deeper()
        if isinstance(node.get("$ref"), str):
            pending.append((_referred(node["$ref"], root), left))
        pending += [(_Schema(one, root), left) for one in _sequence(node.get("allOf"))]
        for key in ("anyOf", "oneOf"):
            if isinstance(node.get(key), list):
                pending.append((_Schema({_ANY_OF: node[key]}, root), left))
        if isinstance(node.get("enum"), list):
            pending.append((_Schema({_ANY_OF: [{"const": value} for value in node["enum"]]}, root), left))
        if isinstance(node.get("const"), list | dict):
            pending.append((_Schema(_structure(node["const"]), root), left))


_ANY_OF = "\x00anyOf"


def _branches(schema: _Schema) -> list[_Schema] | None:
    if isinstance(schema.node, dict) and _ANY_OF in schema.node:
        return [_Schema(one, schema.root) for one in schema.node[_ANY_OF]]
    return None


def _referred(ref: str, root: Any) -> _Schema:
    node: Any = root
    if not ref.startswith("#/$defs/"):
        return _Schema(True, True)
    for key in ref.removeprefix("#").split("/")[1:]:
        name = key.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, dict) or name not in node:
            return _Schema(True, True)
        node = node[name]
    return _Schema(node, root)


def _structure(value: Any) -> dict[str, Any]:
    """A schema that only this value satisfies, with its parts laid open."""
    if isinstance(value, list):
        exact = {"type": "array", "minItems": len(value), "items": False}
        return exact | ({"prefixItems": [{"const": one} for one in value]} if value else {})
    return {
        "type": "object",
        "properties": {name: {"const": one} for name, one in value.items()},
        "required": list(value),
        "additionalProperties": False,
    }


def _kinds(node: Mapping[str, Any]) -> set[str]:
    everything = set(_ARTICLES)
    if "const" in node:
        everything &= {_kind_of(node["const"])}
    said = node.get("type")
    names = [said] if isinstance(said, str) else said if isinstance(said, list) else None
    if names is not None:
        everything &= {_KINDS.get(name, name) for name in names}
    return everything


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _length(node: Mapping[str, Any]) -> tuple[float, float]:
    least, most = node.get("minItems"), node.get("maxItems")
    first = _sequence(node.get("prefixItems"))
    longest = float(most) if isinstance(most, int | float) else float("inf")
    if node.get("items") is False:
        longest = min(longest, float(len(first)))
    return float(least) if isinstance(least, int | float) else 0.0, longest


def _required(node: Mapping[str, Any]) -> set[str]:
    required = node.get("required")
    return {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_fraction(value: Any) -> bool:
    return isinstance(value, float) and not value.is_integer()


def _same(one: Any, other: Any) -> bool:
    return _kind_of(one) == _kind_of(other) and bool(one == other)


def _told(kinds: set[str]) -> str:
    return " or ".join(_ARTICLES[kind] for kind in sorted(kinds)) or "nothing"
