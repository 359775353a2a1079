"""A workflow on the terminal: its head, its nodes, and what there is to do about it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dure.cli import show, times
from dure.cli.report import remedy
from dure.cli.tree import draw, laid_out, tally
from dure.cli.workings import Workings
from dure.job import Reason, State
from dure.workflow import Kind

if TYPE_CHECKING:
    from dure.ledger.flows import NodeView, WorkflowView
    from dure.workflow import Workflow

_WIDEST = 120
_LABELS = 19  # the longest name of a field, and the frame
_BAR = 40
_FRAME = 2
_REMEDIES = 3


def overview(view: WorkflowView, console: Console, *, room: int | None) -> RenderableType:
    """In `room` lines; None draws every node."""
    now = time.time()
    width = console.width
    workings = Workings(view.nodes)
    inner = min(width, _WIDEST) - _LABELS
    fields = list(_fields(view, inner, now))
    remedies = list(_remedies(view, workings))
    taken = sum(1 + value.cell_len // inner for _, value in fields) + len(remedies) + _FRAME
    left = None if room is None else max(room - taken, 3)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields:
        grid.add_row(name, value)
    head = Panel(grid, title=_title(view.workflow), title_align="left", width=min(width, _WIDEST))
    return Group(head, laid_out(draw(workings, now, left), width), *remedies)


def ran(workflow: Workflow, now: float) -> str:
    if workflow.finished_at is not None:
        return times.span(max(0.0, workflow.finished_at - workflow.created_at))
    return f"{times.span(max(0.0, now - workflow.created_at))} …"


def standing(workflow: Workflow) -> str:
    """The state, with the reason where that says more."""
    plain = workflow.reason is None or workflow.reason in (Reason.ERROR, Reason.REVOKED)
    return workflow.state.value if plain else f"{workflow.state.value} {workflow.reason}"


def done(counts: Mapping[State, int]) -> str:
    """`612 of 1,003`."""
    return f"{sum(number for state, number in counts.items() if state.final):,} of {sum(counts.values()):,}"


def _title(workflow: Workflow) -> Text:
    state = Text(standing(workflow), style=show.state(workflow.state).style)
    return Text.assemble((workflow.name or "workflow", "bold"), "  ", state)


def _fields(view: WorkflowView, width: int, now: float) -> Iterator[tuple[str, Text]]:
    workflow = view.workflow
    yield "id", Text(workflow.id)
    if workflow.origin != "dure":
        yield "origin", Text(workflow.origin)
    yield "progress", _progress(view)
    yield "nodes", tally(view.nodes)
    yield (
        "created",
        Text.assemble(times.clock(workflow.created_at), (f"  {times.ago(workflow.created_at, now)}", "dim")),
    )
    if workflow.finished_at is not None:
        yield "finished", Text.assemble(times.clock(workflow.finished_at), (f"  +{ran(workflow, now)}", "dim"))
    elif workflow.deadline is not None:
        yield (
            "deadline",
            Text.assemble(times.clock(workflow.deadline), (f"  {times.ago(workflow.deadline, now)}", "dim")),
        )
    if workflow.cancel_requested_at is not None:
        at = workflow.cancel_requested_at
        yield "cancel asked", Text.assemble(times.clock(at), (f"  {times.ago(at, now)}", "dim"))
    if workflow.state.final and len(view.critical_path) > 1:
        yield "critical path", _critical_path(view, width)


def _progress(view: WorkflowView) -> Text:
    """One stroke for each part, coloured by how it ended; a thin one for what has not ended."""
    total = sum(view.counts.values())
    bar = Text()
    drawn = 0
    reached = 0
    for state in (State.SUCCESS, State.FAILURE, State.REVOKED, State.STARTED):
        reached += view.counts.get(state, 0)
        until = reached * _BAR // total if total else 0
        bar.append(("━" if state.final else "╌") * (until - drawn), style=show.state(state).style)
        drawn = until
    bar.append("╌" * (_BAR - drawn), style="dim")
    return Text.assemble(bar, f"  {done(view.counts)}")


def _critical_path(view: WorkflowView, width: int) -> Text:
    seconds = f"  {times.span(view.critical_seconds)}"
    names = list(view.critical_path)
    way = " → ".join(names)
    while len(way) + len(seconds) > width and len(names) > 3:
        names.pop(len(names) // 2)
        half = len(names) // 2
        way = " → ".join([*names[:half], "…", *names[half:]])
    return Text.assemble((way, "dim"), seconds)


def _remedies(view: WorkflowView, workings: Workings) -> Iterator[RenderableType]:
    workflow = view.workflow
    waits = [node for node in view.nodes if _waits(node, workings)] if not workflow.state.final else []
    for node in waits[:_REMEDIES]:
        yield remedy(f"dure signal {workflow.id} {node.job.node} [JSON]")
    failed = next((node.job for node in view.nodes if _failed_itself(node)), None)
    if failed is not None:
        yield remedy(f"dure job {failed.id}")
    if workflow.state in (State.FAILURE, State.REVOKED) and workflow.origin == "dure":
        yield remedy(f"dure retry {workflow.id}")


def _waits(node: NodeView, workings: Workings) -> bool:
    return node.kind is Kind.WAIT and node.job.state is State.WAITING and workings.is_ready(node)


def _failed_itself(node: NodeView) -> bool:
    return node.job.state is State.FAILURE and node.job.reason != Reason.UPSTREAM_FAILED
