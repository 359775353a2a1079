"""A call's arguments against the schema that the task's worker announced.

Positions are given their parameters' names, so that one object schema judges both forms and every complaint can name
the argument as the caller wrote it: `args.0` or `kwargs.x`, or `x` where the body was the named arguments themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jsonschema_rs
import structlog

from dure.errors import FieldError, InvalidSubmission
from dure.task import Task

log = structlog.get_logger("dure")

Place = tuple[str | int, ...]


class ArgumentCheck:
    """Compiled once for a task; `check` raises InvalidSubmission with each wrong argument."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._validator = None if task.arguments is None else jsonschema_rs.Draft202012Validator(task.arguments)

    @property
    def parameters(self) -> frozenset[str]:
        return frozenset((self._task.arguments or {}).get("properties", ()))

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, named: bool = False) -> None:
        """`named` says that the caller wrote `kwargs` as the whole body."""
        if self._validator is None:
            return
        positional = self._task.positional
        bound = {**kwargs, **dict(zip(positional, args, strict=False))}
        surplus = 0 if self._task.variadic else len(args) - len(positional)
        if surplus > 0 or len(bound) < len(kwargs) + min(len(args), len(positional)) or not self._fits(bound):
            errors = self._errors(bound, args, kwargs, named) + [
                FieldError(("args", position), f"{self._task.name} takes {len(positional)} positional arguments")
                for position in range(len(positional), len(positional) + surplus)
            ]
            raise InvalidSubmission(errors)

    def _fits(self, bound: Mapping[str, Any]) -> bool:
        assert self._validator is not None  # noqa: S101 - `check` has looked
        return self._validator.is_valid(bound)

    def _errors(
        self, bound: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any], named: bool
    ) -> list[FieldError]:
        place = _placer(self._task.positional[: len(args)], named)
        twice = [name for name in self._task.positional[: len(args)] if name in kwargs]
        errors = [FieldError(place(name), "given both by position and by name") for name in twice]
        assert self._validator is not None  # noqa: S101 - `check` has looked
        for error in self._validator.iter_errors(dict(bound)):
            path = list(error.instance_path)
            errors += _one(error, path, place)
        return errors


def argument_check(task: Task) -> ArgumentCheck:
    """One that lets everything pass where the schema that the worker told cannot be read."""
    try:
        return ArgumentCheck(task)
    except ValueError as exc:
        log.warning("a task's schema cannot be read; its arguments go unchecked", task=task.name, error=str(exc))
        return ArgumentCheck(Task(name=task.name))


def _placer(by_position: Sequence[str], named: bool) -> Callable[[str], Place]:
    def place(name: str) -> Place:
        if name in by_position:
            return ("args", by_position.index(name))
        return (name,) if named else ("kwargs", name)

    return place


def _one(error: Any, path: list[str | int], place: Callable[[str], Place]) -> list[FieldError]:
    """A complaint about the call as a whole is told of each argument that it is about."""
    if path:
        return [FieldError((*place(str(path[0])), *path[1:]), _message(error))]
    kind = error.kind
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
        return [FieldError(place(kind.property), "this argument is missing")]
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
        return [FieldError(place(name), "the task has no such argument") for name in kind.unexpected]
    return [FieldError(("args",), _message(error))]


def _message(error: Any) -> str:
    text = str(error.message)
    return text if len(text) <= 300 else text[:297] + "..."
