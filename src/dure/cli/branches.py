"""How the nodes of a workflow are put into a drawing that reads from top to bottom; pure.

A branch is a sequence: each step begins when what stands above it has ended. A fork is branches side by side; the step
below a fork joins them. So a chain is one branch, a group a fork, a chord a fork with a step below, and a diamond a
step, a fork and a step. Any other step that needs several is a branch of its own below what it needs, which it names.

A step stands where its immediate dominator is: the last node that every way to it passes.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dure.workflow import On

if TYPE_CHECKING:
    from dure.ledger.flows import NodeView

_FAILING = frozenset({On.FAILURE, On.ERROR})


@dataclass(slots=True, frozen=True)
class Step:
    """`needs` are those that its place does not show; `handlers` run when it fails."""

    node: NodeView
    needs: tuple[NodeView, ...] = ()
    handlers: tuple[NodeView, ...] = ()
    on_failure: bool = False


@dataclass(slots=True, frozen=True)
class Fork:
    branches: tuple[Branch, ...]


Branch = Sequence["Step | Fork"]


@dataclass(slots=True, eq=False)
class _Open:
    """A branch that may go on. `at` is where it stands, `ends` are the nodes in it that nothing in it needs, `needs`
    those of the branches that it is `tied` to; `part_of` is what it was joined into."""

    items: deque[Step | Fork]
    ends: set[str]
    at: tuple[int, int] = (0, 0)
    needs: Sequence[str] = ()
    tied: Sequence[_Open] = ()
    part_of: _Open | None = None

    def now(self) -> _Open:
        branch = self
        while branch.part_of is not None:
            branch = branch.part_of
        return branch


class Level:
    """Nodes side by side: those within one container."""

    def __init__(
        self, nodes: Mapping[str, NodeView], members: Sequence[str], needs: Mapping[str, Mapping[str, On]]
    ) -> None:
        self._nodes = nodes
        self._on = needs
        self._handlers: dict[str, list[NodeView]] = defaultdict(list)
        self._needs = _sorted({job_id: list(needs[job_id]) for job_id in self._without_handlers(members)})
        self._place: dict[str, str | None] = {}
        self._depth: dict[str | None, int] = {None: 0}
        for job_id, found in self._needs.items():
            place = self._dominator(found)
            self._place[job_id] = place
            self._depth[job_id] = self._depth[place] + 1

    def branch(self) -> Branch:
        below: dict[str | None, list[str]] = defaultdict(list)
        for job_id, place in self._place.items():
            below[place].append(job_id)
        under: dict[str, _Open] = {}
        for job_id in reversed(self._needs):
            under[job_id] = self._under(job_id, below[job_id], under)
        return tuple(self._under(None, below[None], under).items)

    def _without_handlers(self, members: Sequence[str]) -> Iterator[str]:
        """A handler stands beside what it handles, if nothing comes after it."""
        needed = {need for job_id in members for need in self._on[job_id]}
        for job_id in members:
            needs = self._on[job_id]
            if job_id not in needed and len(needs) == 1 and _FAILING.issuperset(needs.values()):
                self._handlers[next(iter(needs))].append(self._nodes[job_id])
            else:
                yield job_id

    def _dominator(self, needs: Sequence[str]) -> str | None:
        common: str | None = needs[0] if needs else None
        for need in needs[1:]:
            other: str | None = need
            while common != other:
                if self._depth[common] < self._depth[other]:
                    common, other = other, common
                common = None if common is None else self._place[common]
        return common

    def _under(self, place: str | None, below: Sequence[str], under: dict[str, _Open]) -> _Open:
        """What stands below a node because only it leads there, as one branch."""
        branches: dict[int, _Open] = {}
        of_child: dict[str, _Open] = {}
        for number, job_id in enumerate(below):
            needs = [need for need in self._needs[job_id] if need != place]
            joined = _tied(of_child[self._child(need, place)].now() for need in needs)
            new = under.pop(job_id)
            new.ends = new.ends or {job_id}
            if _ends(joined).issubset(needs):
                new.items.appendleft(self._step(job_id))
                new.at = (number, 0)
                if joined:
                    new = _join(joined, new)
                    for branch in joined:
                        branches.pop(id(branch))
            else:
                new.items.appendleft(self._step(job_id, needs))
                new.at = (max(branch.at for branch in joined)[0], number)
                new.needs, new.tied = needs, joined
            of_child[job_id] = branches[id(new)] = new
        return _side_by_side(sorted(branches.values(), key=lambda branch: branch.at))

    def _child(self, job_id: str, place: str | None) -> str:
        """Of those that stand directly under `place`, the one that leads to the node."""
        while (above := self._place[job_id]) is not None and above != place:
            job_id = above
        return job_id

    def _step(self, job_id: str, needs: Sequence[str] = ()) -> Step:
        on = self._on[job_id]
        on_failure = bool(on) and _FAILING.issuperset(on.values())
        return Step(
            node=self._nodes[job_id],
            needs=tuple(self._nodes[need] for need in (on if on_failure else needs)),
            handlers=tuple(self._handlers.get(job_id, ())),
            on_failure=on_failure,
        )


def _tied(branches: Iterable[_Open]) -> list[_Open]:
    """Each once, with those that they need, in the order in which they stand."""
    found: dict[int, _Open] = {}
    left = list(branches)
    while left:
        branch = left.pop()
        if id(branch) not in found:
            found[id(branch)] = branch
            left.extend(tied.now() for tied in branch.tied)
    return sorted(found.values(), key=lambda branch: branch.at)


def _join(joined: Sequence[_Open], after: _Open) -> _Open:
    """A branch of both, which stands where the first of the joined ones stood."""
    whole = _side_by_side(joined)
    whole.items.extend(after.items)
    whole.ends = after.ends
    whole.at = joined[0].at
    whole.needs, whole.tied = (), ()
    for branch in joined:
        if branch is not whole:
            branch.part_of = whole
    return whole


def _side_by_side(branches: Sequence[_Open]) -> _Open:
    if len(branches) == 1:
        return branches[0]
    fork = [Fork(tuple(tuple(branch.items) for branch in branches))] if branches else []
    return _Open(deque(fork), _ends(branches))


def _ends(branches: Sequence[_Open]) -> set[str]:
    """The nodes that none of these needs."""
    ends: set[str] = set().union(*(branch.ends for branch in branches))
    return ends.difference(*(branch.needs for branch in branches))


def _sorted(needs: dict[str, list[str]]) -> dict[str, list[str]]:
    """Needs come first, else as they were given; needs that are not here are left out.

    Of containers whose parts need one another crosswise there is no such order; they stand side by side.
    """
    number = {job_id: at for at, job_id in enumerate(needs)}
    open_needs = {job_id: {need for need in found if need in needs} for job_id, found in needs.items()}
    wanted_by: dict[str, list[str]] = defaultdict(list)
    for job_id, found in open_needs.items():
        for need in found:
            wanted_by[need].append(job_id)
    ready = [(number[job_id], job_id) for job_id, found in open_needs.items() if not found]
    ordered: dict[str, list[str]] = {}
    while ready:
        _, job_id = heapq.heappop(ready)
        ordered[job_id] = [need for need in needs[job_id] if need in needs]
        for dependant in wanted_by[job_id]:
            open_needs[dependant].discard(job_id)
            if not open_needs[dependant]:
                heapq.heappush(ready, (number[dependant], dependant))
    return ordered | {job_id: [] for job_id in needs if job_id not in ordered}
