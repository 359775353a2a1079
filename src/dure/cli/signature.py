"""A task's signature, written from its JSON schemas as Python would write it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dure.task import Task

_NAMES = {
    "integer": "int",
    "number": "float",
    "string": "str",
    "boolean": "bool",
    "object": "dict",
    "null": "None",
    "array": "list",
}


def signature(task: Task) -> str:
    """`(x: int, y: int = 1, *args, key: str) -> float`; `(…)` where a stock worker told names only."""
    if task.arguments is None:
        return "(…)"
    properties: Mapping[str, Any] = task.arguments.get("properties", {})
    named = [name for name in properties if name not in task.positional]
    parts = [_parameter(name, properties[name]) for name in task.positional if name in properties]
    if task.variadic:
        parts.append("*args")
    elif named:
        parts.append("*")
    parts += [_parameter(name, properties[name]) for name in named]
    if task.arguments.get("additionalProperties", True):
        parts.append("**kwargs")
    returns = f" -> {_type(task.result)}" if task.result else ""
    return f"({', '.join(parts)}){returns}"


def _parameter(name: str, schema: Mapping[str, Any]) -> str:
    kind = _type(schema)
    text = f"{name}: {kind}" if kind else name
    if "default" not in schema:
        return text
    default = json.dumps(schema["default"], ensure_ascii=False)
    default = {"null": "None", "true": "True", "false": "False"}.get(default, default)
    return f"{text} = {default}" if kind else f"{text}={default}"


def _type(schema: Any) -> str:
    """Nothing where the schema takes anything."""
    match schema:
        case {"$ref": str(reference)}:
            return reference.rpartition("/")[2]
        case {"anyOf": [*choices]}:
            return " | ".join(dict.fromkeys(map(_type, choices)))
        case {"enum": [*values]}:
            return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
        case {"format": str(form)}:
            return form
        case {"type": str(kind)}:
            return _container(kind, schema) or _NAMES.get(kind, kind)
    return ""


def _container(kind: str, schema: Mapping[str, Any]) -> str:
    inside = {"array": "items", "object": "additionalProperties"}.get(kind)
    item = _type(schema.get(inside, False)) if inside else ""
    if not item:
        return ""
    return f"list[{item}]" if kind == "array" else f"dict[str, {item}]"
