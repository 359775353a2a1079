"""The first half of compiling: forms become parts and drafts, in the order in which they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from dure.errors import FieldError
from dure.workflow import ERROR, ITEM, RESULT, Kind, On
from dure.workflows.parts import Draft, Output, Part, Scope, Want
from dure.workflows.spec import (
    ChainForm,
    ChordForm,
    Form,
    GroupForm,
    MapForm,
    MapTask,
    NodesForm,
    Spec,
    TaskForm,
    WaitForm,
    written,
)
from dure.workflows.templates import Place, Slot, Template, open_args, open_kwargs, open_value

SINGLE = (TaskForm, MapForm, WaitForm)


class Given(NamedTuple):
    """What a form is given by its place: a part's result, how it failed, or the item of a map."""

    kind: str
    part: Part | None = None

    def slot(self, container: list[Any]) -> Slot:
        path = ("id",) if self.kind == ERROR else ()
        return Slot(container, 0, self.kind, "", path, part=self.part)


class Where(NamedTuple):
    """A form's place: the name its steps begin with, where it was sent, and what it gets and waits for."""

    name: str
    loc: Place
    scope: Scope
    given: Given | None = None
    wants: tuple[Want, ...] = ()
    after_list: bool = False

    def below(self, name: str | int, *loc: str | int, **changes: Any) -> Where:
        inner = {"given": self.given, "wants": self.wants, "after_list": self.after_list, **changes}
        return Where(f"{self.name}.{name}" if self.name else str(name), (*self.loc, *loc), self.scope, **inner)

    def after(self, part: Part) -> dict[str, Any]:
        """What comes to the one that follows `part`."""
        return {
            "given": Given(RESULT, part),
            "wants": (Want(part=part),),
            "after_list": part.output is Output.LIST and part.step is None,
        }


class Layout:
    """`drafts` and `parts` in the order in which they stood; `errors` of all that was wrong."""

    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.parts: list[Part] = []
        self.errors: list[FieldError] = []

    def lay_whole(self, form: Form, scope: Scope) -> Part:
        """The outermost form: its name is the workflow's, unless it is a single step."""
        name = scope.prefix.removesuffix(".")
        if isinstance(form, SINGLE) or (isinstance(form, GroupForm) and not form.group):
            name = scope.prefix + (form.name or "0")
        return self._lay(form, Where(name, (), scope))

    def lay_item(self, form: Form, where: Where) -> Part:
        """The body of a map, for one item or for any."""
        self._refuse_timeout(form, where)
        return self._lay(form, where._replace(given=Given(ITEM)))

    def lay(self, form: Form, where: Where) -> Part:
        """A form in another; one with a name can be referred to."""
        scope, name = where.scope, form.name
        self._refuse_timeout(form, where)
        if name is None:
            return self._lay(form, where)
        if error := scope.declare(name, where.loc):
            self.errors.append(error)
        part = self._lay(form, where._replace(name=scope.prefix + name))
        scope.parts[name] = part
        return part

    def _lay(self, form: Form, where: Where) -> Part:
        return _LAID[type(form)](self, form, self._with_needs(form, where))

    def _refuse_timeout(self, form: Form, where: Where) -> None:
        if form.timeout is not None:
            message = "only the whole workflow has one; a task has a time_limit, and a wait a timeout of its own"
            self.errors.append(FieldError((*where.loc, "timeout"), message))

    def _with_needs(self, form: Form, where: Where) -> Where:
        if not form.needs:
            return where
        loc = (*where.loc, "needs")
        named = (
            Want(on=on and On(on), scope=where.scope, name=name, loc=(*loc, name if on else index))
            for index, (name, on) in enumerate(form.needs.items())
        )
        return where._replace(wants=(*where.wants, *named))

    def _part(self, where: Where, **fields: Any) -> Part:
        part = Part(where.name, where.loc, **{"scope": where.scope, **fields})
        self.parts.append(part)
        return part

    def _step(self, kind: Kind, where: Where, form: Form | None = None, **fields: Any) -> Part:
        draft = Draft(where.name, kind, where.loc, where.scope, form=form, wants=list(where.wants), **fields)
        draft.continues = getattr(form, "on_failure", None) == "continue"
        self.drafts.append(draft)
        return self._part(where, step=draft)

    def _opened(self, template: Template) -> list[Slot]:
        self.errors += template.errors
        return template.slots

    def _task(self, form: TaskForm, where: Where) -> Part:
        given = None if form.immutable else where.given
        args = open_args(form.args, (*where.loc, "args"), shift=1 if given else 0)
        kwargs = open_kwargs(form.kwargs, (*where.loc, "kwargs"))
        slots = self._opened(args) + self._opened(kwargs)
        if given is not None and given.kind == ITEM and any(slot.kind == ITEM for slot in slots):
            args, given = open_args(form.args, (*where.loc, "args")), None
            slots = args.slots + kwargs.slots
        if given is not None:
            slots.append(given.slot(args.value))
        part = self._step(Kind.TASK, where, form, args=args.value, kwargs=kwargs.value, slots=slots)
        if form.link or form.link_error:
            self._links(form, part, where)
        return part

    def _links(self, form: TaskForm, part: Part, where: Where) -> None:
        for index, linked in enumerate(form.link):
            self.lay(linked, where.below(f"link.{index}", "link", index, **where.after(part)))
        # A chord's body is told of by its errbacks too when the header failed.
        on = On.FAILURE if where.after_list else On.ERROR
        for index, linked in enumerate(form.link_error):
            told = {"given": Given(ERROR, part), "wants": (Want(part=part, on=on),), "after_list": False}
            self.lay(linked, where.below(f"error.{index}", "link_error", index, **told))

    def _chain(self, form: ChainForm, where: Where) -> Part:
        part = self.lay(form.chain[0], where.below(0, "chain", 0))
        for index, step in enumerate(form.chain[1:], 1):
            part = self.lay(step, where.below(index, "chain", index, **where.after(part)))
        return self._part(where, ends=[part])

    def _group(self, form: GroupForm, where: Where) -> Part:
        return self._side_by_side(form.group, "group", where, where)

    def _side_by_side(self, forms: Sequence[Form], key: str, where: Where, own: Where) -> Part:
        if not forms:
            return self._step(Kind.VALUE, own, args=[[]])
        members = [self.lay(form, where.below(index, key, index)) for index, form in enumerate(forms)]
        return self._part(own, ends=members, output=Output.LIST)

    def _chord(self, form: ChordForm, where: Where) -> Part:
        parts = form.chord
        at = where._replace(loc=(*where.loc, "chord"))
        header = self._side_by_side(parts.header, "header", at, at.below("header", "header"))
        body = self.lay(parts.body, at.below("body", "body", **{**where.after(header), "after_list": True}))
        return self._part(where, ends=[body])

    def _map(self, form: MapForm, where: Where) -> Part:
        over, at = form.map.over, (*where.loc, "map")
        if "over" in form.map.model_fields_set:
            template = open_value(over, (*at, "over"))
            args, slots = template.value, self._opened(template)
        elif where.given is not None:
            args = [None]
            slots = [where.given.slot(args)]
        else:
            self.errors.append(FieldError((*at, "over"), "says over which list, where no result comes before"))
            args, slots = [None], []
        part = self._step(Kind.MAP, where, form, args=args, slots=slots)
        assert part.step is not None  # noqa: S101 - it was made with one
        part.step.body = Body.of(form, where._replace(loc=at), self.errors)
        part.step.wants += part.step.body.wants
        return part

    def _wait(self, form: WaitForm, where: Where) -> Part:
        return self._step(Kind.WAIT, where, form)

    def _nodes(self, form: NodesForm, where: Where) -> Part:
        scope = Scope(f"{where.name}." if where.name else "", above=where.scope)
        loc, start = (*where.loc, "nodes"), len(self.drafts)
        bounds: list[tuple[str, int]] = []
        for name in form.nodes:
            scope.places[name] = (*loc, name)
        for name, member in form.nodes.items():
            if member.name not in (None, name):
                self.errors.append(FieldError((*loc, name, "name"), f"this node is called {name!r} by its key"))
            inner = Where(scope.prefix + name, (*loc, name), scope)
            if (where.given or where.wants) and not _mentions(member, form.nodes.keys()):
                inner = inner._replace(given=where.given, wants=where.wants, after_list=where.after_list)
            scope.parts[name] = self.lay(member.model_copy(update={"name": None}) if member.name else member, inner)
            bounds.append((name, len(self.drafts)))
        ends = _unneeded(scope, self.drafts, start, bounds)
        if "result" in form.model_fields_set:
            template = open_value(form.result, (*where.loc, "result"))
        else:
            box: list[Any] = [{}]
            template = Template(box, [Slot(box[0], name, RESULT, name) for name in ends])
        return self._part(
            where,
            ends=[scope.parts[name] for name in ends],
            output=Output.TEMPLATE,
            template=template.value,
            slots=self._opened(template),
            scope=scope,
        )


class Body:
    """The body of a map, laid out for any item: what it wants from outside, the map has to wait for."""

    def __init__(self, form: Spec, layout: Layout, part: Part, wants: list[Want]) -> None:
        self.form = form
        self.layout = layout
        self.part = part
        self.wants = wants

    @classmethod
    def of(cls, form: MapForm, where: Where, errors: list[FieldError]) -> Body:
        is_task = isinstance(form.map, MapTask)
        body: Spec = form.map if isinstance(form.map, MapTask) else form.map.do
        layout = Layout()
        scope = Scope(f"{where.name}.*.", above=where.scope)
        at = Where(f"{where.name}.*", where.loc if is_task else (*where.loc, "do"), scope)
        part = layout.lay_item(body, at)
        errors += layout.errors
        return cls(body, layout, part, list(_outside(layout, scope)))

    def written(self) -> Any:
        if isinstance(self.form, MapTask):
            return self.form.model_dump(mode="json", exclude_unset=True, exclude={"over"})
        return written(self.form)


def _outside(layout: Layout, scope: Scope) -> Iterator[Want]:
    ends: dict[str, tuple[On | None, Place]] = {}
    for draft in layout.drafts:
        said = [(slot.name, slot.kind == ERROR, (*slot.loc, slot.kind)) for slot in draft.slots if slot.part is None]
        said += [(want.name, False, want.loc) for want in draft.wants if want.part is None]
        for name, is_error, loc in said:
            if name and not _is_inside(name, draft.scope, scope):
                on = On.FAILURE if is_error else None
                if name in ends and ends[name][0] is not on:
                    on = On.END
                ends[name] = (on, loc)
    for name, (on, loc) in ends.items():
        yield Want(on=on, scope=scope.above, name=name, loc=loc)


def _is_inside(name: str, scope: Scope, outermost: Scope) -> bool:
    for inner in scope.upwards():
        if name in inner.parts:
            return True
        if inner is outermost:
            return False
    return False


_LAID: dict[type[Form], Callable[[Any, Any, Where], Part]] = {
    TaskForm: Layout._task,
    MapTask: Layout._task,
    NodesForm: Layout._nodes,
    ChainForm: Layout._chain,
    GroupForm: Layout._group,
    ChordForm: Layout._chord,
    MapForm: Layout._map,
    WaitForm: Layout._wait,
}


def _mentions(form: Form, names: Any) -> bool:
    """Whether it begins after one of these."""
    said = set(form.needs)
    if isinstance(form, TaskForm):
        templates = [open_args(form.args, ()), open_kwargs(form.kwargs, ())]
        said |= {slot.name for template in templates for slot in template.slots}
    elif isinstance(form, MapForm):
        said |= {slot.name for slot in open_value(form.map.over, ()).slots}
    return not said.isdisjoint(names)


def _unneeded(scope: Scope, drafts: list[Draft], start: int, bounds: list[tuple[str, int]]) -> list[str]:
    """The members that no other waits for, without those that are only run when something failed."""
    needed: set[str] = set()
    after_failure: set[str] = set()
    followers: dict[str, list[str]] = {}
    for name, stop in bounds:
        for draft in drafts[start:stop]:
            failures = {failed for failed in draft.wants_failure() if failed in scope.parts}
            for said in _names(draft):
                if said in scope.parts and said not in failures:
                    needed.add(said)
                    followers.setdefault(said, []).append(name)
            if failures:
                after_failure.add(name)
        start = stop
    pending = list(after_failure)
    while pending:
        more = set(followers.get(pending.pop(), ())) - after_failure
        after_failure |= more
        pending += more
    return [name for name, _ in bounds if name not in needed and name not in after_failure]


def _names(draft: Draft) -> Iterator[str]:
    yield from (slot.name for slot in draft.slots if slot.part is None)
    yield from (want.name for want in draft.wants if want.part is None)
