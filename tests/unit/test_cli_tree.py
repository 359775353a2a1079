"""How a workflow is drawn: every node once and below what it needs, and in bounds however many there are."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from dure.cli.branches import Branch, Step
from dure.cli.overview import overview
from dure.cli.tree import Line, draw, laid_out
from dure.cli.workings import Workings
from dure.job import Job, JobError, Reason, State
from dure.ledger.flows import NodeView, WorkflowView
from dure.workflow import Edge, Kind, On, Workflow

NOW = 1_000.0
BROKEN = JobError(type="shop.errors.Broken", message="it broke\nin two lines")
UPSTREAM: dict[str, Any] = {"state": State.FAILURE, "reason": Reason.UPSTREAM_FAILED}


def node(name: str, *needs: str, kind: Kind = Kind.TASK, on: On = On.SUCCESS, **fields: Any) -> NodeView:
    edges = tuple(Edge(job_id=f"job-{name}", name=need, needs=f"job-{need}", on=on) for need in needs)
    job = Job(id=f"job-{name}", node=name, **{"task": "shop.work", "state": State.WAITING} | fields)
    return NodeView(job=job, kind=kind, needs=edges)


def failed(name: str, *needs: str) -> NodeView:
    return node(name, *needs, state=State.FAILURE, reason=Reason.ERROR, error=BROKEN)


def drawn(*nodes: NodeView, room: int | None = None) -> list[str]:
    """The column of nodes."""
    return [line.node.plain for line in draw(Workings(nodes), NOW, room)]


def whole(*nodes: NodeView, width: int = 120) -> list[str]:
    return laid_out(draw(Workings(nodes), NOW, None), width).plain.splitlines()


def a_map(items: int, **of: NodeView) -> list[NodeView]:
    made = [of.get(f"x{n}", node(f"x.{n}", state=State.QUEUED)) for n in range(items)]
    names = [str(each.job.node) for each in made]
    return [node("list"), node("x", "list", *names, kind=Kind.VALUE), *made, node("sum", "x")]


def test_a_chain_goes_straight_down() -> None:
    assert drawn(node("a"), node("b", "a"), node("c", "b")) == ["  ○ a", "↓ ○ b", "↓ ○ c"]


def test_a_chord_is_a_fork_and_what_joins_it() -> None:
    assert drawn(node("0"), node("1"), node("body", "0", "1")) == ["  ├─ ○ 0", "  └─ ○ 1", "↓ ○ body"]


def test_a_diamond_is_a_step_a_fork_and_a_step() -> None:
    diamond = (node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c", "a"))
    assert drawn(*diamond) == ["  ○ a", "  ├─ ○ b", "  └─ ○ c", "↓ ○ d"]


def test_chords_side_by_side_have_forks_of_their_own() -> None:
    chords = [made for g in "ab" for made in (node(f"{g}0"), node(f"{g}1"), node(g, f"{g}0", f"{g}1"))]
    assert drawn(*chords, node("all", "a", "b")) == [
        "  ├──┬─ ○ a0",
        "  │  └─ ○ a1",
        "  │↓ ○ a",
        "  └──┬─ ○ b0",
        "     └─ ○ b1",
        "   ↓ ○ b",
        "↓ ○ all",
    ]


def test_a_node_whose_place_does_not_show_its_needs_names_them() -> None:
    lines = draw(Workings([node("a"), node("b"), node("c", "a"), node("d", "a", "b")]), NOW, None)
    assert [line.node.plain for line in lines] == ["  ├─ ○ a", "  │↓ ○ c", "  ├─ ○ b", "  └─ ○ d"]
    assert [line.note.plain for line in lines] == ["", "", "", "needs a, b"]


def test_what_joins_branches_that_need_one_another_names_nothing() -> None:
    web = [node("a"), node("b"), node("c", "a"), node("d", "a", "b"), node("e", "c", "d")]
    lines = draw(Workings(web), NOW, None)
    assert (lines[-1].node.plain, lines[-1].note.plain) == ("↓ ○ e", "")


def test_a_handler_stands_beside_what_it_handles() -> None:
    assert drawn(node("a"), node("oops", "a", on=On.ERROR), node("b", "a")) == [
        "  ○ a",
        "  ╰ on failure: ○ oops",
        "↓ ○ b",
    ]


def test_a_handler_that_others_need_names_whose_failure_it_is_for() -> None:
    lines = draw(Workings([node("a"), node("h", "a", on=On.FAILURE), node("after", "h")]), NOW, None)
    assert [(line.node.plain, line.note.plain) for line in lines][1] == ("↓ ○ h", "if a fails")


def test_what_a_map_made_is_drawn_within_it() -> None:
    assert drawn(*a_map(2)) == ["  ○ list", "↓ ● x", "  ┆  ├─ ○ x.0", "  ┆  └─ ○ x.1", "↓ ○ sum"]


def test_what_a_task_became_is_drawn_within_it() -> None:
    became = node("plan", "a", "plan.1", kind=Kind.VALUE)
    lines = whole(node("a"), became, node("plan.0", state=State.SUCCESS), node("plan.1", "plan.0"), node("b", "plan"))
    assert [line.split("  shop")[0].rstrip() for line in lines][2:4] == ["  ┆  ✓ plan.0", "  ┆↓ ○ plan.1"]
    assert "2 nodes" in lines[1]
    assert "1 of 2" in lines[1]


def test_one_that_was_run_again_keeps_its_place_among_its_kind() -> None:
    again = [node("0"), node("2"), node("body", "0", "1", "2"), node("1")]
    assert drawn(*again) == ["  ├─ ○ 0", "  ├─ ○ 1", "  └─ ○ 2", "↓ ○ body"]


def test_a_failure_is_told_in_one_line_and_what_it_took_along_is_quiet() -> None:
    lines = whole(failed("a"), node("b", "a", **UPSTREAM), node("c", state=State.REVOKED, reason=Reason.SKIPPED))
    assert lines[0].startswith("  ├─ ✗ a")
    assert lines[0].endswith("Broken: it broke")
    assert "– b" in lines[1]
    assert "upstream-failed" in lines[1]
    assert "FAILURE" not in lines[1]
    assert "skipped" in lines[2]


def test_many_branches_are_counted_and_those_that_fail_or_run_are_shown() -> None:
    running = node("x.7", state=State.STARTED, started_at=NOW - 2, worker="celery@web")
    lines = draw(Workings(a_map(1000, x3=failed("x.3"), x7=running)), NOW, 40)
    shown = [line.node.plain for line in lines]
    assert shown[2:] == [
        "  ┆  ├─ ○ x.0",
        "  ┆  ├─ ✗ x.3",
        "  ┆  ├─ ● x.7",
        "  ┆  └─ … 997 more: 997 QUEUED",
        "↓ ○ sum",
    ]


def test_of_a_long_chain_the_part_is_shown_that_is_at_work() -> None:
    chain = [node("0", state=State.SUCCESS)]
    for n in range(1, 500):
        state = State.SUCCESS if n < 300 else State.STARTED if n == 300 else State.WAITING
        chain.append(node(f"{n}", f"{n - 1}", state=state, started_at=NOW))
    shown = drawn(*chain, room=20)
    assert len(shown) <= 20
    assert "↓ ● 300" in shown
    assert (shown[0], shown[-1]) == ("  ✓ 0", "↓ ○ 499")
    assert sum("steps: " in line for line in shown) == 2


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = failed("a-very-long-name-of-a-node-indeed-that-goes-on", *["b" * 90])
    lines = whole(node("b" * 90, task="some.package." * 8), long, width=width)
    assert max(map(len, lines)) <= width
    assert all(line.count("…") for line in lines)


def test_a_line_without_columns_goes_on_to_the_end() -> None:
    lines = [Line(Text("a"), "t", Text("SUCCESS"), "1 s", Text("note")), Line(Text("… and so on, and so on"))]
    assert laid_out(lines, 60).plain.splitlines() == ["a  t  SUCCESS  1 s  note", "… and so on, and so on"]


def test_a_workflow_that_waits_says_how_to_signal_it() -> None:
    waits = node("approve", "a", kind=Kind.WAIT)
    later = node("later", "approve", kind=Kind.WAIT)
    text = shown_whole([node("a", state=State.SUCCESS), waits, later])
    assert "→ dure signal flow approve [JSON]" in text
    assert "dure signal flow later" not in text


def test_a_workflow_that_failed_says_what_to_do() -> None:
    text = shown_whole([failed("a"), node("b", "a", **UPSTREAM)], state=State.FAILURE, reason="error")
    assert "→ dure job job-a" in text
    assert "→ dure retry flow" in text
    assert "1 FAILURE · 1 upstream-failed" in text


def shown_whole(nodes: list[NodeView], **fields: Any) -> str:
    counts: dict[State, int] = {}
    for each in nodes:
        counts[each.job.state] = counts.get(each.job.state, 0) + 1
    finished = NOW if "state" in fields else None
    flow = Workflow(**{"id": "flow", "finished_at": finished} | fields)
    console = Console(width=100, height=50, record=True, color_system=None, file=None, highlight=False)
    with console.capture() as capture:
        console.print(overview(WorkflowView(workflow=flow, counts=counts, nodes=tuple(nodes)), console, room=50))
    return capture.get()


@st.composite
def dags(draw: st.DrawFn) -> list[NodeView]:
    size = draw(st.integers(1, 24))
    nodes = []
    for n in range(size):
        needs = draw(st.sets(st.integers(0, n - 1), max_size=4)) if n else set()
        on = draw(st.sampled_from([On.SUCCESS, On.SUCCESS, On.END, On.ERROR]))
        state = draw(st.sampled_from(list(State)))
        nodes.append(node(f"n{n}", *(f"n{need}" for need in sorted(needs)), on=on, state=state))
    return nodes


@given(dags())
def test_every_node_is_drawn_once_and_below_all_that_it_needs(nodes: list[NodeView]) -> None:
    order = [line.rpartition(" ")[2] for line in drawn(*nodes)]
    assert sorted(order) == sorted(str(each.job.node) for each in nodes)
    for each in nodes:
        assert all(order.index(edge.name) < order.index(str(each.job.node)) for edge in each.needs)


@given(dags())
def test_what_is_above_a_step_is_needed_by_it_unless_it_names_its_needs(nodes: list[NodeView]) -> None:
    """Read as it is drawn, each node comes after exactly what it comes after."""
    read = readings(Workings(nodes))
    assert read == {each.job.id: before(nodes, each.job.id) for each in nodes}


def before(nodes: list[NodeView], job_id: str) -> set[str]:
    needs = {each.job.id: {edge.needs for edge in each.needs} for each in nodes}
    found: set[str] = set()
    left = list(needs[job_id])
    while left:
        need = left.pop()
        if need not in found:
            found.add(need)
            left.extend(needs[need])
    return found


def readings(workings: Workings) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}

    def read(branch: Branch, above: set[str]) -> set[str]:
        for item in branch:
            if isinstance(item, Step):
                named = {need.job.id for need in item.needs}
                after = set().union(above, named, *(found[need] for need in named))
                found[item.node.job.id] = after
                for handler in item.handlers:
                    found[handler.job.id] = after | {item.node.job.id}
                above = after | {item.node.job.id}
            else:
                above = set().union(*(read(inner, above) for inner in item.branches))
        return above

    read(workings.branch(), set())
    return found


@pytest.mark.parametrize("shape", ["chain", "comb", "groups", "web"])
def test_ten_thousand_nodes_are_drawn_in_bounds(shape: str) -> None:
    needs: Callable[[int], list[int]] = {
        "chain": lambda n: [n - 1],
        "comb": lambda n: [n - 1 - n % 2],
        "groups": lambda n: [*range(n - 9, n)] if n % 10 == 9 else [],
        "web": lambda n: [n // 2, n // 3],
    }[shape]
    nodes = [node(f"n{n}", *(f"n{need}" for need in sorted(set(needs(n))) if 0 <= need < n)) for n in range(10_000)]
    assert 1 < len(drawn(*nodes, room=50)) <= 50
    assert len(drawn(*nodes)) >= 10_000 or shape in ("comb", "web")
