"""Celery's signatures, as the forms of a workflow.

A chord is a group and what follows it, so however deep `|` has nested chords in the bodies of chords, one chain comes
out. As in Celery, a group of one that stands in a chain is its member, an empty one is passed over there, and a group
in a group is one with it. Celery drops the options of such inner groups and chains; here they hold for their members.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from dure.errors import FieldError, InvalidSubmission
from dure.workflows.canvas_options import LINKS, options_of

Place = tuple[str | int, ...]
Signature = Mapping[str, Any]


@dataclass(frozen=True)
class _Extra:
    """What the canvas around a signature adds to it; `options` are put over its own."""

    options: Mapping[str, Any] = field(default_factory=dict)
    link: tuple[Signature, ...] = ()
    link_error: tuple[Signature, ...] = ()
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    immutable: bool = False

    def without(self, *names: str) -> _Extra:
        return replace(self, options={name: value for name, value in self.options.items() if name not in names})


_NONE = _Extra()
_OVER_ITEMS = ("celery.map", "celery.starmap")
_OF_THE_FORM = ("name", "needs")  # options of Dure's that a composed signature keeps for itself


def spec_of(signature: Signature, loc: Place = ()) -> Any:
    """The workflow, in the form that `read_spec` takes. Raises InvalidSubmission naming each option that Dure lacks."""
    canvas = _Canvas()
    form = canvas.form(signature, loc, _NONE)
    if form is None:
        canvas.errors.append(FieldError(loc, "an empty chain has nothing to run"))
    if canvas.errors:
        raise InvalidSubmission(canvas.errors)
    return form


class _Canvas:
    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def form(self, signature: Signature, loc: Place, extra: _Extra) -> Any | None:
        """None for what has nothing to run."""
        steps = self._steps(signature, loc, extra)
        if not steps:
            return None
        form = {"chain": steps} if len(steps) > 1 else steps[0]
        return form | _named(signature) if _kind(signature) != "task" else form

    def _steps(self, signature: Signature, loc: Place, extra: _Extra) -> list[Any]:
        steps: list[Any] = []
        passed_over = False
        pending = [(signature, loc, extra, False)]
        while pending:
            one, at, added, in_chain = pending.pop()
            kind = _kind(one)
            if kind == "chain":
                pending += reversed(self._chain(one, at, added))
            elif kind == "chord":
                header, body, callbacks = self._chord(one, at, added)
                steps.append(header)
                if body is not None:
                    pending.append((body, (*at, "kwargs", "body"), callbacks, False))
            elif kind == "group" and in_chain and len(_tasks(one)) < 2:
                passed_over = True
                pending += [(task, place, more, True) for task, place, more in _members(one, at, added)]
            elif kind == "group":
                steps.append(self._group(_members(one, at, added)) | _named(one))
            elif kind == "chunks":
                steps.append(self._chunks(one, at, added))
            else:
                steps.append(self._task(one, at, added))
        return steps or ([{"group": []}] if passed_over else [])

    def _chain(self, chain: Signature, loc: Place, extra: _Extra) -> list[tuple[Signature, Place, _Extra, bool]]:
        own = _with_own(chain, extra)
        tasks = _tasks(chain)
        steps = []
        for index, task in enumerate(tasks):
            added = _Extra(link_error=own.link_error)
            if index == 0:
                added = replace(own, link=())
            if index == len(tasks) - 1:
                added = replace(added, link=own.link)
            steps.append((task, (*loc, "kwargs", "tasks", index), added, True))
        return steps

    def _chord(self, chord: Signature, loc: Place, extra: _Extra) -> tuple[Any, Signature | None, _Extra]:
        own = _with_own(chord, extra)
        header = chord["kwargs"].get("header") or []
        tasks = _tasks(header) if isinstance(header, Mapping) and _kind(header) in ("group", "chain") else header
        if isinstance(tasks, Mapping):
            tasks = [tasks]
        partial = {**(chord["kwargs"].get("kwargs") or {}), **own.kwargs}
        added = replace(own, link=(), link_error=(), kwargs=partial)
        members = [(task, (*loc, "kwargs", "header", index), added) for index, task in enumerate(tasks)]
        body = own.without("countdown", "eta")
        body = _Extra(options=body.options, link=body.link, link_error=body.link_error)
        return self._group(members), chord["kwargs"].get("body"), body

    def _group(self, members: Iterable[tuple[Signature, Place, _Extra]]) -> Any:
        forms: list[Any] = []
        for task, loc, extra in members:
            if _kind(task) == "group":
                forms += self._group(_members(task, loc, extra))["group"]
            elif (form := self.form(task, loc, extra)) is not None:
                forms.append(form)
        return {"group": forms}

    def _chunks(self, chunks: Signature, loc: Place, extra: _Extra) -> Any:
        given = chunks["kwargs"]
        items, size = iter(given["it"]), given["n"]
        parts = []
        while part := list(islice(items, size)):
            starmap = {"task": "celery.starmap", "kwargs": {"task": given["task"], "it": part}, "immutable": True}
            parts.append(({**starmap, "options": chunks.get("options") or {}}, loc, extra))
        return self._group(parts)

    def _task(self, signature: Signature, loc: Place, extra: _Extra) -> Any:
        own = {name: value for name, value in (signature.get("options") or {}).items() if name not in LINKS}
        immutable = bool(signature.get("immutable"))
        args, kwargs = tuple(signature.get("args") or ()), dict(signature.get("kwargs") or {})
        if not immutable:
            args, kwargs = extra.args + args, {**kwargs, **extra.kwargs}
        form: dict[str, Any] = {"task": str(signature["task"])}
        if args:
            form["args"] = list(args)
        if form["task"] in _OVER_ITEMS:
            kwargs["it"] = list(kwargs["it"])  # Celery keeps an iterator there
        if kwargs:
            form["kwargs"] = kwargs
        if immutable or extra.immutable:
            form["immutable"] = True
        form |= options_of({**own, **extra.options}, (*loc, "options"), self.errors)
        for name in LINKS:
            callbacks = _distinct((*_callbacks(signature, name), *getattr(extra, name)))
            forms = [self.form(one, (*loc, "options", name, at), _NONE) for at, one in enumerate(callbacks)]
            if any(linked is not None for linked in forms):
                form[name] = [linked for linked in forms if linked is not None]
        return form


def _kind(signature: Signature) -> str:
    task = str(signature.get("task"))
    composed = signature.get("subtask_type") or task.removeprefix("celery.")
    return composed if composed in ("chain", "group", "chord") or task == "celery.chunks" else "task"


def _tasks(signature: Signature) -> list[Signature]:
    return list(signature["kwargs"].get("tasks") or ())


def _members(group: Signature, loc: Place, extra: _Extra) -> list[tuple[Signature, Place, _Extra]]:
    own = _with_own(group, extra)
    tasks = _tasks(group)
    # As Celery has it: a group's callback is its first task's, which cannot tell what the others returned.
    linked = tuple({**callback, "immutable": True} for callback in own.link)
    added = replace(own, link=())
    return [
        (task, (*loc, "kwargs", "tasks", index), replace(added, link=linked) if index == 0 else added)
        for index, task in enumerate(tasks)
    ]


def _with_own(signature: Signature, extra: _Extra) -> _Extra:
    """What a composed signature adds to those in it."""
    options = (signature.get("options") or {}).items()
    own = {name: value for name, value in options if name not in LINKS and name not in _OF_THE_FORM}
    immutable = bool(signature.get("immutable"))
    return replace(
        extra,
        options={**own, **extra.options},
        link=_callbacks(signature, "link") + extra.link,
        link_error=_callbacks(signature, "link_error") + extra.link_error,
        args=(() if immutable else extra.args) + tuple(signature.get("args") or ()),
        immutable=immutable or extra.immutable,
    )


def _named(signature: Signature) -> dict[str, Any]:
    options = signature.get("options") or {}
    return {name: options[name] for name in _OF_THE_FORM if options.get(name)}


def _callbacks(signature: Signature, name: str) -> tuple[Signature, ...]:
    found = (signature.get("options") or {}).get(name) or ()
    return (found,) if isinstance(found, Mapping) else tuple(found)


def _distinct(callbacks: Iterable[Signature]) -> list[Signature]:
    kept: list[Signature] = []
    for callback in callbacks:
        if callback not in kept:
            kept.append(callback)
    return kept
