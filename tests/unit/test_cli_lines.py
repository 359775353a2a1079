"""What `dure watch` writes of the events of a feed, and how its last lines look."""

import io
from typing import Any

import pytest
from rich.console import Console

from dure.cli.bar import Bar
from dure.cli.lines import Lines
from dure.feed import FeedEvent, FeedKind
from dure.job import Job, State

NOW = 1_800_000_000.0


def told(kind: FeedKind, job: str = "j", **data: Any) -> FeedEvent:
    return FeedEvent(id="1.1.1", kind=kind, at=NOW, job=job, data={"at": NOW, **data})


def chunk(value: Any, **more: Any) -> FeedEvent:
    return told(FeedKind.OUTPUT, chunk=value, **more)


END = told(FeedKind.RESULT, state="SUCCESS")


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100)


def written(console: Console, *events: FeedEvent) -> list[str]:
    lines = Lines(console)
    for event in events:
        lines.show(event)
    return str(console.file.getvalue()).splitlines()  # type: ignore[attr-defined]


def test_pieces_of_text_become_lines(console: Console) -> None:
    events = [chunk(piece) for piece in ("a", "b\nc", "d\r\n", "", "\n", "e")]
    assert written(console, *events, END) == ["ab", "cd", "", "e"]


def test_a_line_that_is_not_done_is_the_terminals_last(console: Console) -> None:
    lines = Lines(console)
    lines.show(chunk("to be "))
    lines.show(chunk("continued"))
    assert lines.begun == "to be continued"
    lines.show(chunk("\n"))
    assert lines.begun == ""


def test_other_json_has_a_line_of_its_own_and_ends_the_one_before(console: Console) -> None:
    assert written(console, chunk("a"), chunk({"n": [1, None]}), chunk(2)) == ["a", '{"n":[1,null]}', "2"]


def test_a_log_line_says_when_how_bad_and_whose(console: Console) -> None:
    (line,) = written(console, told(FeedKind.LOG, level="WARNING", logger="shop", message="[b]low[/b]"))
    assert line[2] == ":"
    assert line.endswith("WARNING shop: [b]low[/b]")


def test_each_node_has_its_name_and_lines_of_its_own(console: Console) -> None:
    a, b = {"job": "1", "node": "a"}, {"job": "2", "node": "b"}
    assert written(console, chunk("x", **a), chunk("y\n", **b), chunk("z\n", **a)) == ["b │ y", "a │ xz"]


def test_what_is_missing_and_what_is_tried_again_is_said(console: Console) -> None:
    lines = written(console, told(FeedKind.DROPPED, entries=1200), told(FeedKind.STATE, state="RETRY", attempt=2))
    assert lines == ["… 1,200 older entries are not kept", "attempt 2 failed, and is tried again"]


def test_a_long_line_is_not_broken(console: Console) -> None:
    assert written(console, chunk("x" * 500 + "\n")) == ["x" * 500]


@pytest.mark.parametrize(
    ("progress", "shown", "hidden"),
    [
        ({"current": 3, "total": 10, "message": "step"}, [" 30 %", "3/10", "step", "━"], ["w@h"]),
        ({"current": 12, "total": 10, "message": None}, ["120 %"], []),
        ({"current": 7, "total": None, "message": None}, ["7"], ["%"]),
        ({"current": None, "total": 0, "message": "so\nfar"}, ["so"], ["%", "far"]),
        ({"current": "x", "total": True, "message": None}, [], ["%"]),
    ],
)
def test_the_bar_shows_how_far_a_job_says_it_is(
    console: Console, progress: dict[str, Any], shown: list[str], hidden: list[str]
) -> None:
    job = Job(id="j", task="t", state=State.STARTED, attempts=2, worker="w@h", created_at=NOW)
    bar = Bar(job, Lines(console))
    bar.take(told(FeedKind.PROGRESS, **progress))
    console.print(bar)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ["STARTED", "t", "attempt 2", *shown]:
        assert part in text
    for part in hidden:
        assert part not in text
