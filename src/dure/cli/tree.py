"""The nodes of a workflow as lines: all where there is room, else what fails and what runs, and counts of the rest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from dure.cli import show, times
from dure.cli.branches import Branch, Fork, Step
from dure.cli.workings import Workings
from dure.job import Reason, State
from dure.workflow import Kind

if TYPE_CHECKING:
    from dure.job import Job
    from dure.ledger.flows import NodeView

_DEEPEST = 16
_GAP = 2
_LEAST = 8
_TEXTS = ("node", "state", "note")
_GLYPHS = {
    State.SUCCESS: "✓",
    State.FAILURE: "✗",
    State.STARTED: "●",
    State.RETRY: "↻",
    State.REVOKED: "–",
}
# As they are counted: what has ended, then from the furthest to the least.
_ORDER = (
    *(State.SUCCESS, State.FAILURE, State.REVOKED),
    *(State.STARTED, State.RETRY, State.QUEUED, State.ACCEPTED, State.SCHEDULED, State.WAITING),
)
_URGENT = 3
_QUIET = (Reason.UPSTREAM_FAILED, Reason.SKIPPED)


@dataclass(frozen=True, slots=True)
class Line:
    """One line in its columns; without a `state`, `node` goes on to the end."""

    node: Text
    task: str = ""
    state: Text = field(default_factory=Text)
    ran: str = ""
    note: Text = field(default_factory=Text)


@dataclass(frozen=True, slots=True)
class _Room:
    """How many branches of a fork, and how many steps of a branch, are drawn one by one."""

    wide: float
    long: float
    skipped: bool = False


_EVERYTHING = _Room(math.inf, math.inf, skipped=True)
_ROOMS = (_Room(12, 30, skipped=True), _Room(12, 30), _Room(8, 16), _Room(5, 10), _Room(3, 6), _Room(2, 4), _Room(1, 2))


def draw(workings: Workings, now: float, room: int | None) -> list[Line]:
    """At most `room` lines; None draws every node."""
    if room is None:
        return list(_Pen(workings, now, _EVERYTHING).lines())
    for each in _ROOMS:
        lines = list(_Pen(workings, now, each).lines())
        if len(lines) <= room:
            return lines
    return [*lines[: room - 1], Line(Text(f"  … {len(lines) - room + 1} lines more", style="dim"))]


def tally(nodes: Iterable[NodeView]) -> Text:
    """`612 SUCCESS · 3 FAILURE · 385 WAITING`, in the order of states; what never ran is told by its reason."""
    found = Counter((_ORDER.index(node.job.state), _counted_as(node.job)) for node in nodes)
    parts = [Text(f"{number:,} {word}", style=style) for (_, (word, style)), number in sorted(found.items())]
    return Text(" · ", style="dim").join(parts)


def laid_out(lines: Sequence[Line], width: int) -> Text:
    """In columns: notes may take a half, tasks then lose their beginnings, and nodes their ends."""
    told = [line for line in lines if line.state]
    nodes, states, notes = (max((getattr(line, name).cell_len for line in told), default=0) for name in _TEXTS)
    tasks, rans = (max((len(getattr(line, name)) for line in told), default=0) for name in ("task", "ran"))
    free = width - states - rans - 4 * _GAP
    free -= min(notes, max(free - nodes - tasks, free // 2))
    tasks = min(tasks, max(free - nodes, _LEAST))
    nodes = min(nodes, max(free - tasks, _LEAST))
    whole = Text(no_wrap=True, overflow="ellipsis", end="")
    for line in lines:
        row = (
            line.node
            if not line.state
            else Text(" " * _GAP).join(
                (
                    _fitted(line.node, nodes),
                    Text(_tail(line.task, tasks).ljust(tasks), style="dim"),
                    _fitted(line.state, states),
                    Text(line.ran.rjust(rans), style="dim"),
                    line.note,
                )
            )
        )
        row.rstrip()
        row.truncate(width, overflow="ellipsis")
        whole.append_text(row).append("\n")
    return whole


def _fitted(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis", pad=True)
    return text


def _tail(name: str, room: int) -> str:
    """The end of a name is what tells tasks apart."""
    return name if len(name) <= room else f"…{name[1 - room :]}"


class _Pen:
    def __init__(self, workings: Workings, now: float, room: _Room) -> None:
        self._workings = workings
        self._now = now
        self._room = room

    def lines(self) -> Iterator[Line]:
        yield from self._branch(self._workings.branch(), "  ", "↓ ", "  ", 0)

    def _branch(self, branch: Branch, first: str, then: str, below: str, depth: int) -> Iterator[Line]:
        """`first` stands before its first line, `then` before each further step, `below` before what hangs on one."""
        shown = self._shown_steps(branch)
        at = 0
        while at < len(branch):
            lead = first if not at else below if isinstance(branch[at], Fork) else then
            if at in shown:
                yield from self._item(branch[at], lead, below, depth)
                at += 1
                continue
            end = next((i for i in range(at, len(branch)) if i in shown), len(branch))
            steps = sum(isinstance(item, Step) for item in branch[at:end])
            yield self._left_out(f"{steps:,} steps", branch[at:end], lead)
            at = end

    def _item(self, item: Step | Fork, lead: str, below: str, depth: int) -> Iterator[Line]:
        if isinstance(item, Fork):
            yield from self._fork(item, lead, below, depth)
            return
        node = item.node
        parts = self._workings.branch(node.job.id) if self._workings.is_container(node) else ()
        yield self._line(node, lead, _needs(item))
        for handler in item.handlers:
            if self._room.skipped or handler.job.reason != Reason.SKIPPED:
                yield self._line(handler, f"{below}╰ on failure: ", ())
        if parts:
            inner = below + "┆  "
            yield from self._branch(parts, inner, below + "┆↓ ", inner, depth + 1)

    def _fork(self, fork: Fork, lead: str, below: str, depth: int) -> Iterator[Line]:
        shown = self._shown_branches(fork) if depth < _DEEPEST else []
        rest = len(fork.branches) - len(shown)
        for number, at in enumerate(shown):
            is_last = number == len(shown) - 1 and not rest
            corner, side = ("└", " ") if is_last else ("├", "│")
            if number == 0 and lead != below:
                first = lead[:-1] + "─┬─ " if lead.endswith("─ ") else lead + "├─ "
            else:
                first = f"{below}{corner}─ "
            yield from self._branch(fork.branches[at], first, f"{below}{side}↓ ", f"{below}{side}  ", depth + 1)
        if rest:
            left = set(range(len(fork.branches))).difference(shown)
            more = "more" if shown else "side by side"
            yield self._left_out(
                f"{rest:,} {more}", [i for at in left for i in fork.branches[at]], f"{below}└─ " if shown else lead
            )

    def _shown_steps(self, branch: Branch) -> set[int]:
        """Where it is long: its ends, what fails, and the steps around the first that has not ended."""
        if len(branch) <= self._room.long + 1:
            return set(range(len(branch)))
        ranks = [self._rank(item) for item in branch]
        ended = [all(node.job.state.final for node in self._nodes([item])) for item in branch]
        front = ended.index(False) if False in ended else len(branch)
        last = len(branch) - 1
        by_worth = sorted(range(len(branch)), key=lambda at: (at not in (0, last), -ranks[at], abs(at - front)))
        shown = set(by_worth[: int(self._room.long)])
        # To leave out a single one saves nothing.
        return shown | {at for at in range(1, last) if at - 1 in shown and at + 1 in shown}

    def _shown_branches(self, fork: Fork) -> list[int]:
        """Where there are many: what fails and what runs, else the first few."""
        many = len(fork.branches)
        if many <= self._room.wide + 1:
            return list(range(many))
        ranks = [max(map(self._rank, branch)) for branch in fork.branches]
        urgent = sum(rank >= _URGENT for rank in ranks)
        by_worth = sorted(range(many), key=lambda at: (-ranks[at], at))
        return sorted(by_worth[: int(min(max(urgent, 3), self._room.wide))])

    def _rank(self, item: Step | Fork) -> int:
        return max(map(self._urgency, self._nodes([item])))

    def _urgency(self, node: NodeView) -> int:
        job = node.job
        if job.state is State.FAILURE:
            return 0 if job.reason in _QUIET else 4
        if job.state in (State.STARTED, State.RETRY) or self._waits_for_signal(node):
            return 3
        return 1 if not job.state.final and job.state is not State.WAITING else 0

    def _waits_for_signal(self, node: NodeView) -> bool:
        return node.kind is Kind.WAIT and node.job.state is State.WAITING and self._workings.is_ready(node)

    def _nodes(self, items: Iterable[Step | Fork]) -> Iterator[NodeView]:
        left = list(items)
        while left:
            item = left.pop()
            if isinstance(item, Fork):
                left.extend(inner for branch in item.branches for inner in branch)
            else:
                yield item.node
                yield from item.handlers
                yield from self._workings.inside(item.node)

    def _left_out(self, what: str, items: Iterable[Step | Fork], lead: str) -> Line:
        return Line(Text.assemble((lead, "dim"), (f"… {what}: ", "dim"), tally(self._nodes(items))))

    def _line(self, node: NodeView, lead: str, needs: Sequence[Text]) -> Line:
        job = node.job
        quiet = job.reason in _QUIET
        style = "dim" if quiet else show.state(job.state).style
        glyph = "–" if quiet else _GLYPHS.get(job.state, "○")
        inside = list(self._workings.inside(node))
        state = Text(_counted_as(job)[0] if quiet else show.standing(job), style=style)
        if inside and not job.state.final:
            done = sum(part.job.state.final for part in inside)
            style = show.state(State.STARTED).style
            state = Text(f"{done:,} of {len(inside):,}", style=style)
            glyph = _GLYPHS[State.STARTED]
        mark = Text(glyph, style=style)
        name = Text.assemble((lead, "dim"), mark, " ", job.node or job.id)
        notes = Text(" · ", style="dim").join([*needs, *self._notes(node)])
        return Line(name, _task(node, len(inside)), state, show.ran(job, self._now), notes)

    def _notes(self, node: NodeView) -> Iterator[Text]:
        job = node.job
        if job.attempts > 1:
            yield Text(f"attempt {job.attempts}", style="yellow")
        if job.error is not None and job.state is not State.SUCCESS:
            yield Text(job.error.message, style="dim") if job.reason in _QUIET else show.beginning(job, 200)
        if self._waits_for_signal(node):
            yield Text("waits for its signal", style="yellow")
        if not job.state.final and job.cancel_requested_at is not None:
            yield Text("asked to end", style="magenta")
        if job.state is State.SCHEDULED and job.eta is not None:
            yield Text(f"due {times.ago(job.eta, self._now)}", style="dim")
        if job.state is State.STARTED and job.worker:
            yield Text(job.worker, style="dim")


def _task(node: NodeView, inside: int) -> str:
    if inside:
        return "1 node" if inside == 1 else f"{inside:,} nodes"
    return (node.job.task or "–") if node.kind is Kind.TASK else node.kind.value


def _needs(step: Step) -> list[Text]:
    if not step.needs:
        return []
    names = [need.job.node or need.job.id for need in step.needs]
    more = f" and {len(names) - 4} more" if len(names) > 5 else ""
    listed = ", ".join(names if not more else names[:4]) + more
    return [Text(f"if {listed} fails" if step.on_failure else f"needs {listed}", style="dim")]


def _counted_as(job: Job) -> tuple[str, str]:
    if job.reason in _QUIET:
        return str(job.reason), "dim"
    return job.state.value, str(show.state(job.state).style)
