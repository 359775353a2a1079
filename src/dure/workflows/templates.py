"""Arguments that hold references: each is found, checked for its form, and kept as a slot to be filled later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dure.errors import FieldError
from dure.workflow import ERROR, ERROR_PARTS, ITEM, LITERAL, PATH, RESULT, Path

if TYPE_CHECKING:
    from dure.workflows.parts import Part

Place = tuple[str | int, ...]
Container = dict[Any, Any] | list[Any]

MAX_DEPTH = 100
KINDS = (RESULT, ERROR, ITEM)
SPECIAL = frozenset((*KINDS, LITERAL))


@dataclass(eq=False, slots=True)
class Slot:
    """`container[key]` is a reference of this kind, sent at `loc`; to `part` where its place means one."""

    container: Any
    key: Any
    kind: str
    name: str
    path: tuple[str | int, ...] = ()
    loc: Place = ()
    part: Part | None = None

    def fill(self, value: Any) -> None:
        self.container[self.key] = value


@dataclass(eq=False, slots=True)
class Template:
    """A copy of what was sent, with its slots and what is wrong in it."""

    value: Any
    slots: list[Slot] = field(default_factory=list)
    errors: list[FieldError] = field(default_factory=list)


def open_value(value: Any, loc: Place) -> Template:
    """Its `value` is a list of one."""
    template = Template([None])
    _copy(template.value, 0, value, loc, template, 0)
    return template


def open_args(args: list[Any], loc: Place, *, shift: int = 0) -> Template:
    """`shift` places before them are left free."""
    template = Template([None] * shift + list(args))
    for index, value in enumerate(args):
        _copy(template.value, index + shift, value, (*loc, index), template, 0)
    return template


def open_kwargs(kwargs: dict[str, Any], loc: Place) -> Template:
    template = Template(dict(kwargs))
    if not SPECIAL.isdisjoint(kwargs):
        template.errors.append(FieldError(loc, "are named one by one; a reference stands for the value of a name"))
        return template
    for name, value in kwargs.items():
        _copy(template.value, name, value, (*loc, name), template, 0)
    return template


def reference(kind: str, name: str | bool, path: Path = ()) -> dict[str, Any]:
    return {kind: name, PATH: list(path)} if path else {kind: name}


def quoted(value: Any) -> Any:
    """Data as a template that gives it."""
    level = [value]
    while level:
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                if not SPECIAL.isdisjoint(one):
                    return {LITERAL: value}
                below += one.values()
            elif isinstance(one, list | tuple):
                below += one
        level = below
    return value


def _copy(container: Container, key: Any, value: Any, loc: Place, into: Template, depth: int) -> None:
    if depth > MAX_DEPTH:
        message = f"nested deeper than {MAX_DEPTH} levels; where no reference is in it, write it as $literal"
        into.errors.append(FieldError(loc, message))
    elif isinstance(value, dict):
        if not SPECIAL.isdisjoint(value):
            _special(container, key, value, loc, into)
            return
        container[key] = copy = dict(value)
        for name, inner in value.items():
            if isinstance(inner, dict | list | tuple):
                _copy(copy, name, inner, (*loc, name), into, depth + 1)
    elif isinstance(value, list | tuple):
        items = container[key] = list(value)
        for index, inner in enumerate(value):
            if isinstance(inner, dict | list | tuple):
                _copy(items, index, inner, (*loc, index), into, depth + 1)
    else:
        container[key] = value


def _special(container: Container, key: Any, value: dict[str, Any], loc: Place, into: Template) -> None:
    container[key] = value
    kind = next(special for special in (LITERAL, *KINDS) if special in value)
    allowed = {kind} if kind == LITERAL else {kind, PATH}
    errors = [
        FieldError((*loc, name), f"does not go with {kind}; data that has such a key is written as $literal")
        for name in value
        if name not in allowed
    ]
    path = value.get(PATH, ())
    if kind == ITEM and value[ITEM] is not True:
        errors.append(FieldError((*loc, ITEM), "is true, and nothing else"))
    if kind in (RESULT, ERROR) and not isinstance(value[kind], str):
        errors.append(FieldError((*loc, kind), "is the name of a node"))
    if kind != LITERAL and not _is_path(path):
        errors.append(FieldError((*loc, PATH), 'is a list of names and positions, such as ["items", 0]'))
    elif kind == ERROR and path and path[0] not in ERROR_PARTS:
        errors.append(FieldError((*loc, PATH, 0), f"an error has {', '.join(ERROR_PARTS)}"))
    into.errors += errors
    if kind != LITERAL and not errors:
        into.slots.append(Slot(container, key, kind, "" if kind == ITEM else value[kind], tuple(path), loc))


def _is_path(path: Any) -> bool:
    return isinstance(path, list | tuple) and all(
        isinstance(step, str | int) and not isinstance(step, bool) for step in path
    )
