"""From the submitted form to steps and what they need.

The first half lays the forms out; here names are looked up, slots filled, and what is needed in several places joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct, field

from dure.errors import FieldError, InvalidSubmission
from dure.workflow import ERROR, ITEM, LITERAL, PATH, RESULT, Kind, NoSuchPart, On, Path, references
from dure.workflow import part as part_of
from dure.workflows.layout import Body, Layout, Where
from dure.workflows.order import cycle
from dure.workflows.parts import Draft, Output, Part, Scope, Want
from dure.workflows.spec import Spec, TaskForm, WaitForm, is_signature, read_spec
from dure.workflows.templates import Place, Slot, quoted, reference

NOTHING: Final = object()
ANY: Final = object()


class Step(Struct, frozen=True, kw_only=True):
    """One node. Its templates refer to steps by name, and each of those is among its `needs`.

    `delay` and `expires_in` are seconds from the moment in which the needs are met, `eta` and `expires` moments.
    """

    name: str
    kind: Kind = Kind.TASK
    task: str | None = None
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    needs: Mapping[str, On] = field(default_factory=dict)
    queue: str | None = None
    priority: int | None = None
    eta: float | None = None
    expires: float | None = None
    retries: int | None = None
    time_limit: float | None = None
    tags: tuple[str, ...] = ()
    delay: float | None = None
    expires_in: float | None = None
    continues: bool = False
    body: Any = None
    loc: Place = ()
    given: int = 0  # how many of its first arguments come from its place, and were not sent


class Compiled(Struct, frozen=True, kw_only=True):
    """`output` is the template of the result. `ends` are the steps that the whole ends with, and those that its result
    refers to. `bodies` are those of the maps, compiled for any item."""

    steps: tuple[Step, ...]
    output: Any
    ends: Mapping[str, On]
    bodies: Mapping[str, Compiled] = field(default_factory=dict)


def compile_spec(spec: Spec, *, prefix: str = "", item: Any = NOTHING) -> Compiled:
    """The steps of a workflow; in another their names begin with `prefix`. `item` is that of a map whose body it is.

    Raises InvalidSubmission: unknown nodes, cycles, names given twice.
    """
    layout, scope = Layout(), Scope(f"{prefix}." if prefix else "")
    if item is NOTHING:
        return _Linker(layout, {}).linked(layout.lay_whole(spec, scope))
    whole = layout.lay_item(spec, Where(prefix, (), scope))
    return _Linker(layout, dict.fromkeys((*layout.drafts, *layout.parts), item)).linked(whole)


def expand(body: Any, items: Sequence[Any], prefix: str) -> Compiled:
    """The steps of a map's body for each of the items; its output is the list of theirs.

    Raises InvalidSubmission, also where an item lacks a part that the body refers to.
    """
    spec = read_spec(body["do"])
    above = Scope("", parts={name: _outer(name, told) for name, told in body.get("outer", {}).items()})
    layout = Layout()
    whole = Part(prefix, (), output=Output.LIST)
    item_of: dict[Draft | Part, Any] = {}
    for index, item in enumerate(items):
        drafts, parts = len(layout.drafts), len(layout.parts)
        name = f"{prefix}.{index}"
        whole.ends.append(layout.lay_item(spec, Where(name, (), Scope(f"{name}.", above=above))))
        item_of |= dict.fromkeys((*layout.drafts[drafts:], *layout.parts[parts:]), item)
    return _Linker(layout, item_of).linked(whole)


def sub_workflow(result: Any) -> Any | None:
    """The workflow that a task returned, as `read_spec` takes it; None where its result is a value like any other."""
    if not isinstance(result, dict):
        return None
    if result.keys() == {"$workflow"}:
        return result["$workflow"]
    return result if is_signature(result) else None


def _outer(name: str, told: Mapping[str, Any]) -> Part:
    return Part(name, (), output=Output.TEMPLATE, template=[told["result"]], error=told.get("error", ""))


class _Linker:
    """`item_of` tells the item of a map that a draft or part was laid out for."""

    def __init__(self, layout: Layout, item_of: Mapping[Draft | Part, Any]) -> None:
        self._drafts = layout.drafts
        self._parts = layout.parts
        self._errors = layout.errors
        self._item_of = item_of
        self._by_name: dict[str, Draft] = {}
        self._bodies: dict[str, Compiled] = {}

    def linked(self, whole: Part) -> Compiled:
        self._find()
        self._raise()
        self._join()
        self._index()
        for part in self._parts:
            self._fill(part.slots, part)
        for draft in self._drafts:
            self._settle(draft)
        output = self._result(whole, (), whole.loc)
        ends = {draft.name: draft.lets_pass for draft in whole.sinks()}
        ends |= self._referred(output, ends)
        self._raise()
        if found := cycle({draft.name: draft.needs for draft in self._drafts}):
            message = f"these wait for one another: {' -> '.join(found)}"
            self._errors.append(FieldError(self._by_name[found[0]].loc, message))
        steps = tuple(self._step(draft) for draft in self._drafts)
        self._raise()
        return Compiled(steps=steps, output=output, ends=ends, bodies=self._bodies)

    def _raise(self) -> None:
        if self._errors:
            raise InvalidSubmission(self._errors)

    def _find(self) -> None:
        """Look up what was named, and count how often each part is wanted."""
        for draft in self._drafts:
            wanted: set[Part] = set()
            for want in draft.wants:
                if part := self._want(want):
                    wanted.add(part)
                    if want.on in (On.FAILURE, On.ERROR) or (want.on is On.END and draft.kind is Kind.MAP):
                        part.is_joined = True
            for slot in draft.slots:
                if slot.kind == ITEM:
                    self._check_item(slot, draft)
                elif part := self._named(slot, draft.scope):
                    wanted.add(part)
                    part.is_joined |= slot.kind == ERROR
            for part in wanted:
                part.uses += 1
        for part in self._parts:
            for slot in part.slots:
                if slot.kind == ITEM:
                    self._check_item(slot, part)
                elif (found := self._named(slot, part.own_names())) and slot.kind == ERROR:
                    found.is_joined = True

    def _want(self, want: Want) -> Part | None:
        if want.part is None and want.scope is not None:
            want.part = want.scope.find(want.name)
            if want.part is None:
                self._errors.append(want.scope.unknown(want.name, want.loc))
                want.scope = None  # told once, though many steps may share the need
        return want.part

    def _named(self, slot: Slot, scope: Scope | None) -> Part | None:
        if slot.part is None and scope is not None:
            slot.part = scope.find(slot.name)
            if slot.part is None:
                self._errors.append(scope.unknown(slot.name, (*slot.loc, slot.kind)))
        return slot.part

    def _check_item(self, slot: Slot, place: Draft | Part) -> None:
        if place not in self._item_of:
            self._errors.append(FieldError(slot.loc, f"{ITEM} is known in the body of a map only"))

    def _join(self) -> None:
        # A part comes after its members, so theirs are joined before.
        for part in list(self._parts):
            wanted = part.is_joined or (part.uses > 1 and part.is_wide())
            if wanted and part.step is None and part.error is None:
                sinks = [Want(part=end) for end in part.ends]
                args: list[Any] = [None]
                whole = Part(part.name, part.loc, None, part.ends, part.output, part.template, part.slots, part.scope)
                slot = Slot(args, 0, RESULT, "", (), part.loc, whole)
                scope = part.scope or Scope("")
                part.step = Draft(part.name, Kind.VALUE, part.loc, scope, args, slots=[slot], wants=sinks)
                self._drafts.append(part.step)

    def _index(self) -> None:
        for draft in self._drafts:
            if draft.name in self._by_name:
                first = ".".join(map(str, self._by_name[draft.name].loc))
                message = f"would be called {draft.name!r} as {first or 'the whole'} is; give one of them another name"
                self._errors.append(FieldError(draft.loc, message))
            self._by_name[draft.name] = draft

    def _settle(self, draft: Draft) -> None:
        """Fill its slots and tell what it needs: where its place says nothing, what it refers to decides."""
        said: dict[str, On] = {}
        implied: dict[str, On] = {}
        for want in draft.wants:
            if want.part is None:
                continue
            if want.on in (On.FAILURE, On.ERROR) and want.part.step is not None:
                said[want.part.step.name] = want.on
            else:
                for sink in want.part.sinks():
                    (implied if want.on is None else said)[sink.name] = want.on or sink.lets_pass
        referred = self._fill(draft.slots, draft)
        draft.needs = implied | referred | said
        if isinstance(draft.body, Body):
            draft.body = self._body(draft, draft.body)

    def _fill(self, slots: Sequence[Slot], place: Draft | Part) -> dict[str, On]:
        needs: dict[str, On] = {}
        for slot in slots:
            if slot.kind == ITEM:
                slot.fill(self._item(slot, self._item_of.get(place)))
                continue
            assert slot.part is not None  # noqa: S101 - what was not found has been raised
            if slot.kind == ERROR:
                step = slot.part.step
                slot.fill(value := reference(ERROR, step.name if step else slot.part.error or "", slot.path))
            else:
                slot.fill(value := self._result(slot.part, slot.path, slot.loc))
            for name, on in self._referred(value, ()).items():
                needs[name] = on if needs.get(name, on) is on else On.END
        return needs

    def _referred(self, template: Any, known: Any) -> dict[str, On]:
        found: dict[str, On] = {}
        for told in references(template):
            if told.kind == ITEM or told.name in known:
                continue
            draft = self._by_name.get(told.name)
            # What is outside of a map has ended before its body is made.
            on = On.END if draft is None else draft.lets_pass if told.kind == RESULT else On.FAILURE
            found[told.name] = on if found.get(told.name, on) is on else On.END
        return found

    def _item(self, slot: Slot, item: Any) -> Any:
        if item is ANY:
            return reference(ITEM, True, slot.path)
        try:
            return quoted(part_of("item", item, slot.path))
        except NoSuchPart as exc:
            self._errors.append(FieldError(slot.loc, str(exc)))
            return None

    def _result(self, part: Part, path: Path, loc: Place) -> Any:
        if part.step is not None:
            return reference(RESULT, part.step.name, path)
        if part.output is Output.LAST:
            return self._result(part.ends[-1], path, loc)
        if part.output is Output.TEMPLATE:
            return self._inside(part, part.template[0], path, loc)
        if not path:
            return [self._result(member, (), loc) for member in part.ends]
        at = path[0]
        if not isinstance(at, int) or not -len(part.ends) <= at < len(part.ends):
            self._errors.append(
                FieldError(loc, f"the result of {part.name!r} is a list of {len(part.ends)}, without {at!r}")
            )
            return None
        return self._result(part.ends[at], path[1:], loc)

    def _inside(self, part: Part, template: Any, path: Path, loc: Place) -> Any:
        """What `path` leads to in a template."""
        for index, at in enumerate(path):
            if isinstance(template, dict) and not template.keys().isdisjoint((RESULT, ERROR, ITEM)):
                return {**template, PATH: [*template.get(PATH, ()), *path[index:]]}
            try:
                if isinstance(template, dict) and LITERAL in template:
                    return quoted(part_of(part.name, template[LITERAL], path[index:]))
                template = part_of(part.name, template, (at,))
            except NoSuchPart as exc:
                self._errors.append(FieldError(loc, str(exc)))
                return None
        return template

    def _body(self, draft: Draft, body: Body) -> Any:
        outer: dict[str, Any] = {}
        for want in body.wants:
            if want.part is not None:
                outer[want.name] = {"result": self._result(want.part, (), want.loc)}
                if want.part.step is not None:
                    outer[want.name]["error"] = want.part.step.name
                # All that the template says has to be there when the body is made.
                draft.needs = {**self._referred(outer[want.name]["result"], draft.needs), **draft.needs}
        layout = body.layout
        try:
            items: dict[Draft | Part, Any] = dict.fromkeys((*layout.drafts, *layout.parts), ANY)
            self._bodies[draft.name] = _Linker(layout, items).linked(body.part)
        except InvalidSubmission as exc:
            self._errors += [error for error in exc.errors if error not in self._errors]
        return {"do": body.written()} | ({"outer": outer} if outer else {})

    def _step(self, draft: Draft) -> Step:
        options: dict[str, Any] = {}
        if isinstance(draft.form, TaskForm):
            options = _options(draft.form)
        elif isinstance(draft.form, WaitForm):
            options = {"expires_in": draft.form.wait.timeout}
        return Step(
            name=draft.name,
            kind=draft.kind,
            args=draft.args,
            kwargs=draft.kwargs,
            needs=draft.needs,
            continues=draft.continues,
            body=draft.body,
            loc=draft.loc,
            given=sum(not slot.loc and slot.container is draft.args for slot in draft.slots),
            **options,
        )


def _options(form: TaskForm) -> dict[str, Any]:
    until = form.expires
    return {
        "task": form.task,
        "queue": form.queue,
        "priority": form.priority,
        "eta": form.eta.timestamp() if form.eta else None,
        "expires": until.timestamp() if isinstance(until, datetime) else None,
        "retries": form.retries,
        "time_limit": form.time_limit,
        "tags": tuple(dict.fromkeys(form.tags)),
        "delay": form.delay,
        "expires_in": None if isinstance(until, datetime) else until,
    }
