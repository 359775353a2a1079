"""A compiled workflow against the tasks that workers have announced, before any of it is accepted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from msgspec import structs

from dure.arguments import ArgumentCheck, argument_check
from dure.errors import FieldError, InvalidSubmission
from dure.task import Task
from dure.workflow import ERROR, ITEM, LITERAL, PATH, RESULT, Kind, Reference, references
from dure.workflows.compile import Compiled, Step
from dure.workflows.fits import item_schema, mismatch, part_schema
from dure.workflows.templates import Place

_BUILT_IN = "celery."
_OVER_ITEMS = ("celery.map", "celery.starmap")
_CONDITIONAL = frozenset({"if", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems", "not"})


def task_names(compiled: Compiled) -> set[str]:
    """The tasks that it runs, those in the bodies of its maps too."""
    names = {name for step in compiled.steps for name, _ in _named(step) if not name.startswith(_BUILT_IN)}
    return names.union(*(task_names(body) for body in compiled.bodies.values()))


def check(compiled: Compiled, tasks: Mapping[str, Task], *, force: bool = False) -> None:
    """Raises InvalidSubmission with every place: tasks that are not among `tasks`, unless it is forced; arguments that
    do not fit; results that cannot be the arguments that they are to be."""
    errors = list(_Check(compiled, tasks, force, True).errors())
    if errors:
        raise InvalidSubmission(errors)


def _named(step: Step) -> Iterator[tuple[str, Place]]:
    """The tasks of a step, and where they were named."""
    if step.task is not None:
        yield step.task, (*step.loc, "task")
    inner = step.kwargs.get("task")
    if step.task in _OVER_ITEMS and isinstance(inner, dict) and isinstance(inner.get("task"), str):
        yield inner["task"], (*step.loc, "kwargs", "task", "task")


class _Check:
    """`item` is the schema of the item, in the body of a map."""

    def __init__(
        self,
        compiled: Compiled,
        tasks: Mapping[str, Task],
        force: bool,
        item: Any,
        above: _Check | None = None,
        checks: dict[tuple[str, bool], ArgumentCheck] | None = None,
    ) -> None:
        self._compiled = compiled
        self._tasks = tasks
        self._force = force
        self._item = item
        self._above = above
        self._steps = {step.name: step for step in compiled.steps}
        self._checks: dict[tuple[str, bool], ArgumentCheck] = {} if checks is None else checks

    def errors(self) -> Iterator[FieldError]:
        for step in self._compiled.steps:
            if not self._force:
                yield from self._unknown(step)
            if step.task is not None and step.task in self._tasks:
                yield from self._arguments(step, self._tasks[step.task])
            if step.kind is Kind.MAP:
                yield from self._map(step)

    def _unknown(self, step: Step) -> Iterator[FieldError]:
        for name, place in _named(step):
            if name not in self._tasks and not name.startswith(_BUILT_IN):
                near = get_close_matches(name, self._tasks, n=3)
                hint = f"; did you mean {', '.join(near)}?" if near else ""
                yield FieldError(place, f"no worker has announced a task named {name!r}{hint}")

    def _arguments(self, step: Step, task: Task) -> Iterator[FieldError]:
        if task.arguments is None:
            return
        found = [*_prefixed("args", references(step.args)), *_prefixed("kwargs", references(step.kwargs))]
        places = [told.place for told in found]
        # Which arguments there are is known, whatever they will be; a value only where no reference is near.
        errors = self._told(step, structs.replace(task, arguments=_names_only(task.arguments))) if places else []
        if not places or _is_plain(task.arguments):
            near = [*places, *(error.loc for error in errors)]
            told = self._told(step, task)
            errors += [error for error in told if not any(_meet(error.loc, place) for place in near)]
        for error in errors:
            yield FieldError(_as_sent(step, error.loc), error.message)
        wrong = {error.loc[:2] for error in errors}
        for place in dict.fromkeys(told[:2] for told in places):
            schema = _parameter(task, place)
            if schema is None or place in wrong:
                continue
            value = step.args[place[1]] if isinstance(place[1], int) else step.kwargs[place[1]]
            if reason := mismatch(self._schema(value), (), schema):
                at = _as_sent(step, place)
                yield FieldError(at, _about(value, reason, sent=at != step.loc))

    def _told(self, step: Step, task: Task) -> list[FieldError]:
        key = (task.name, task is self._tasks[task.name])
        if key not in self._checks:
            self._checks[key] = argument_check(task)
        try:
            self._checks[key].check(_shown(step.args), _shown(step.kwargs))
        except InvalidSubmission as exc:
            return list(exc.errors)
        return []

    def _map(self, step: Step) -> Iterator[FieldError]:
        over = self._schema(step.args[0])
        if reason := mismatch(over, (), {"type": "array"}):
            yield FieldError((*step.loc, "map", "over"), _about(step.args[0], reason))
            return
        body = self._compiled.bodies[step.name]
        item = item_schema(over)
        yield from _Check(body, self._tasks, self._force, item, self, self._checks).errors()

    def _schema(self, template: Any) -> Any:
        """What a template gives, once it is filled in."""
        if isinstance(template, list):
            items = [self._schema(value) for value in template]
            exact = {"type": "array", "minItems": len(items), "items": False}
            return exact | ({"prefixItems": items} if items else {})
        if not isinstance(template, dict):
            return {"const": template}
        if LITERAL in template:
            return {"const": template[LITERAL]}
        if not template.keys().isdisjoint((RESULT, ERROR, ITEM)):
            return self._referred(template)
        return {
            "type": "object",
            "properties": {name: self._schema(value) for name, value in template.items()},
            "required": list(template),
            "additionalProperties": False,
        }

    def _referred(self, reference: dict[str, Any]) -> Any:
        path = reference.get(PATH, ())
        if RESULT in reference:
            return self._result(reference[RESULT], path)
        return part_schema(self._item, path) if ITEM in reference else True

    def _result(self, name: str, path: Any) -> Any:
        step = self._steps.get(name)
        if step is None:
            return self._above._result(name, path) if self._above else True
        schema = part_schema(self._whole_result(step), path)
        return {"anyOf": [schema, {"type": "null"}]} if step.continues else schema

    def _whole_result(self, step: Step) -> Any:
        if step.kind is Kind.VALUE:
            return self._schema(step.args[0])
        if step.kind is Kind.MAP:
            body = self._compiled.bodies[step.name]
            over = item_schema(self._schema(step.args[0]))
            inner = _Check(body, self._tasks, self._force, over, self, self._checks)
            return {"type": "array", "items": inner._schema(body.output)}
        task = self._tasks.get(step.task or "")
        if task is None or task.result is None:
            return True
        return {**task.result, "$id": f"urn:result:{task.name}"}


def _prefixed(first: str, found: Iterable[Reference]) -> Iterator[Reference]:
    return (told._replace(place=(first, *told.place)) for told in found)


def _meet(place: Place, other: Place) -> bool:
    """Whether one of them is at or below the other."""
    return all(a == b for a, b in zip(place, other, strict=False))


def _as_sent(step: Step, place: Place) -> Place:
    """An argument that came from the step's place was not sent; the step is named then."""
    if place[:1] != ("args",) or len(place) < 2 or not isinstance(place[1], int):
        return (*step.loc, *place)
    index = place[1] - step.given
    return step.loc if index < 0 else (*step.loc, "args", index, *place[2:])


def _about(value: Any, reason: str, *, sent: bool = True) -> str:
    told = next(iter(references(value)), None)
    if told is None or told.place or told.kind == ERROR:
        return f"{'this' if sent else 'its first argument'} {reason}"
    at = "".join(f"[{part!r}]" for part in told.path)
    of = "the item" if told.kind == ITEM else f"the result of {told.name!r}"
    return f"{of}{' at ' + at if at else ''} {reason}"


def _parameter(task: Task, place: Place) -> Any | None:
    """The schema of one argument, as a document of its own."""
    assert task.arguments is not None  # noqa: S101 - who asks has looked
    name = place[1]
    if isinstance(name, int):
        if name >= len(task.positional):
            return None
        name = task.positional[name]
    schema = task.arguments.get("properties", {}).get(name)
    if not isinstance(schema, dict):
        return None
    return {**schema, "$defs": task.arguments.get("$defs", {})}


def _shown(template: Any) -> Any:
    """A template with what is quoted in it laid open; references are left."""
    if isinstance(template, list):
        return [_shown(value) for value in template]
    if isinstance(template, dict):
        return template[LITERAL] if LITERAL in template else {key: _shown(value) for key, value in template.items()}
    return template


def _names_only(arguments: dict[str, Any]) -> dict[str, Any]:
    """A schema of which arguments there are, that takes any value for each."""
    kept = {name: arguments[name] for name in ("type", "required", "additionalProperties") if name in arguments}
    return kept | {"properties": dict.fromkeys(arguments.get("properties", {}), True)}


def _is_plain(schema: Any) -> bool:
    """Whether what is wrong at one place is told there or above, whatever stands at others."""
    if isinstance(schema, dict):
        return _CONDITIONAL.isdisjoint(schema) and all(_is_plain(value) for value in schema.values())
    return all(_is_plain(value) for value in schema) if isinstance(schema, list) else True
