"""JSON schemas (draft 2020-12) of a task's arguments and result, from the type hints of its body.

Nothing here fails: a parameter without a hint, with one that cannot be resolved, or of a type that has no schema,
takes anything, and its schema is `{}`. Parameters are never made fields of a model, so any name works.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from inspect import Parameter
from types import SimpleNamespace
from typing import Any, Optional

import msgspec
from msgspec import Struct
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from dure.worker.typeddict import readable

_ANY = object()
_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Signature(Struct, frozen=True, kw_only=True):
    """`arguments` is the schema of an object with one property for each parameter; see dure.task.Task."""

    arguments: dict[str, Any]
    result: dict[str, Any] | None
    positional: tuple[str, ...]
    variadic: bool


def signature_of(body: Callable[..., Any]) -> Signature | None:
    """The schemas of a function; None for one that Python cannot tell the parameters of."""
    try:
        signature = inspect.signature(body)
    except (TypeError, ValueError):
        return None
    parameters = list(signature.parameters.values())
    return Signature(
        arguments=_arguments(body, parameters),
        result=_result(body, signature.return_annotation),
        positional=tuple(p.name for p in parameters if p.kind in _POSITIONAL),
        variadic=any(p.kind is Parameter.VAR_POSITIONAL for p in parameters),
    )


def _arguments(body: Callable[..., Any], parameters: Iterable[Parameter]) -> dict[str, Any]:
    named = [p for p in parameters if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    rest = next((p for p in parameters if p.kind is Parameter.VAR_KEYWORD), None)
    hints = {p.name: _parameter_hint(body, p) for p in named}
    schemas, definitions = _schemas(hints, "validation")
    for parameter in named:
        _add_default(schemas[parameter.name], parameter.default)
    arguments: dict[str, Any] = {"type": "object", "properties": schemas}
    required = [p.name for p in named if p.default is Parameter.empty]
    if required:
        arguments["required"] = required
    if rest is None:
        arguments["additionalProperties"] = False
    if definitions:
        arguments["$defs"] = definitions
    return arguments


def _result(body: Callable[..., Any], annotation: Any) -> dict[str, Any] | None:
    if annotation is inspect.Signature.empty:
        return None
    schemas, definitions = _schemas({"return": _hint(body, "return", annotation)}, "serialization")
    schema = schemas["return"]
    return schema | {"$defs": definitions} if definitions else schema


def _parameter_hint(body: Callable[..., Any], parameter: Parameter) -> Any:
    if parameter.annotation is Parameter.empty:
        return _ANY
    hint = _hint(body, parameter.name, parameter.annotation)
    # `x: int = None` says that None may be passed as well.
    return Optional[hint] if parameter.default is None and hint is not _ANY else hint  # noqa: UP045


def _hint(body: Callable[..., Any], name: str, annotation: Any) -> Any:
    """One annotation at a time: one that cannot be resolved leaves the others whole."""
    function = inspect.unwrap(body)
    scope = getattr(getattr(function, "__func__", function), "__globals__", {})
    holder = SimpleNamespace(__annotations__={name: annotation})
    try:
        return readable(typing.get_type_hints(holder, globalns=scope, localns={}, include_extras=True)[name])
    except Exception:
        return _ANY


def _schemas(hints: Mapping[str, Any], mode: JsonSchemaMode) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """A schema for each hint, and the definitions that they share."""
    adapters = {name: adapter for name, hint in hints.items() if (adapter := _adapter(hint, mode)) is not None}
    made, shared = TypeAdapter.json_schemas([(name, mode, adapter) for name, adapter in adapters.items()])
    schemas = {name: dict(made[name, mode]) if name in adapters else {} for name in hints}
    return schemas, dict(shared.get("$defs", {}))


def _adapter(hint: Any, mode: JsonSchemaMode) -> TypeAdapter[Any] | None:
    if hint is _ANY:
        return None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
        adapter.json_schema(mode=mode)
    except Exception:
        return None
    return adapter


def _add_default(schema: dict[str, Any], default: Any) -> None:
    if default is Parameter.empty:
        return
    if isinstance(default, float) and not math.isfinite(default):
        return
    with suppress(Exception):
        schema["default"] = msgspec.json.decode(msgspec.json.encode(default))
