"""What the compiler works on: steps that still refer to forms by name, and the parts that forms have become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from typing import Any

from dure.errors import FieldError
from dure.workflow import ERROR, Kind, On
from dure.workflows.templates import Place, Slot


class Output(Enum):
    """What the result of a part of several steps is: the list of its members', the last one's, or what it says."""

    LIST = "list"
    LAST = "last"
    TEMPLATE = "template"


@dataclass(eq=False, slots=True)
class Part:
    """A form that was laid out: a step, or members of which the `ends` are what others wait for.

    A part of several ends that is wanted in several places is joined: it gets a VALUE step of its own name, so that m
    steps that want n others make m + n edges.
    """

    name: str
    loc: Place
    step: Draft | None = None
    ends: list[Part] = field(default_factory=list)
    output: Output = Output.LAST
    template: list[Any] = field(default_factory=list)  # a list of one, in which slots may be open
    slots: list[Slot] = field(default_factory=list)
    scope: Scope | None = None
    error: str | None = None  # of a part outside of a map: the step that tells how it failed
    uses: int = 0
    is_joined: bool = False

    def own_names(self) -> Scope | None:
        """Those that its result may refer to: what is outside could refer to it in turn, without a step between."""
        return self.scope and Scope(self.scope.prefix, parts=self.scope.parts)

    def sinks(self) -> Iterator[Draft]:
        """The steps that end last."""
        if self.step is not None:
            yield self.step
        else:
            for part in self.ends:
                yield from part.sinks()

    def is_wide(self) -> bool:
        sinks = self.sinks()
        return next(sinks, None) is not None and next(sinks, None) is not None


@dataclass(eq=False, slots=True)
class Want:
    """A need that was said by name in `scope`, or that the form's place means: then `part` is known. Without `on` the
    need itself decides."""

    on: On | None = None
    part: Part | None = None
    scope: Scope | None = None
    name: str = ""
    loc: Place = ()


@dataclass(eq=False, slots=True)
class Draft:
    """A step whose slots are open."""

    name: str
    kind: Kind
    loc: Place
    scope: Scope
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    slots: list[Slot] = field(default_factory=list)
    wants: list[Want] = field(default_factory=list)
    form: Any = None
    continues: bool = False
    body: Any = None
    needs: dict[str, On] = field(default_factory=dict)

    @property
    def lets_pass(self) -> On:
        return On.END if self.continues else On.SUCCESS

    def wants_failure(self) -> Iterator[str]:
        """Names of what has to fail before this is run; what it wants the result of too may also succeed."""
        both_ways = {slot.name for slot in self.slots if slot.kind != ERROR}
        both_ways |= {want.name for want in self.wants if want.on in (On.SUCCESS, On.END)}
        failures = [slot.name for slot in self.slots if slot.kind == ERROR and slot.part is None]
        failures += [want.name for want in self.wants if want.on is On.FAILURE]
        return (name for name in failures if name not in both_ways)


@dataclass(eq=False, slots=True)
class Scope:
    """Names that can be referred to; `prefix` begins the names of their steps."""

    prefix: str
    above: Scope | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)

    def declare(self, name: str, loc: Place) -> FieldError | None:
        if name in self.places:
            first = ".".join(map(str, self.places[name]))
            return FieldError((*loc, "name"), f"{name!r} is the name of {first} already")
        self.places[name] = loc
        return None

    def find(self, name: str) -> Part | None:
        return next((scope.parts[name] for scope in self.upwards() if name in scope.parts), None)

    def unknown(self, name: str, loc: Place) -> FieldError:
        near = get_close_matches(name, [known for scope in self.upwards() for known in scope.parts], n=1)
        return FieldError(loc, f"there is no node {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))

    def upwards(self) -> Iterator[Scope]:
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.above
