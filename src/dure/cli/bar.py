"""The last lines of a terminal while a job is followed: the line that it is writing, its state, how far it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from dure.cli import show, times
from dure.feed import FeedEvent, FeedKind

if TYPE_CHECKING:
    from dure.cli.lines import Lines
    from dure.job import Job

_BAR = 30


class Bar:
    """Drawn anew whenever the terminal is: what it shows moves on by itself."""

    def __init__(self, job: Job, lines: Lines) -> None:
        self._lines = lines
        self._spinner = Spinner("dots")
        self._progress: dict[str, Any] = {}
        self.job = job

    def take(self, event: FeedEvent) -> None:
        if event.kind is FeedKind.PROGRESS:
            self._progress = event.data

    def __rich__(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1, 0, 0))
        cells: list[RenderableType] = [self._spinner, show.state(self.job.state), Text(self.job.task or "job", "bold")]
        if self.job.attempts > 1:
            cells.append(Text(f"attempt {self.job.attempts}", "yellow"))
        cells += self._how_far()
        since = self.job.started_at or self.job.created_at
        cells.append(Text(times.span(max(0.0, time.time() - since)), "dim"))
        if not self._progress and self.job.worker:
            cells.append(Text(self.job.worker, "dim"))
        for cell in cells:
            grid.add_column(no_wrap=True, overflow="ellipsis", width=_BAR if isinstance(cell, ProgressBar) else None)
        grid.add_row(*cells)
        return Group(Text(self._lines.begun, no_wrap=True, overflow="ellipsis"), grid) if self._lines.begun else grid

    def _how_far(self) -> list[RenderableType]:
        current, total = _number(self._progress.get("current")), _number(self._progress.get("total"))
        cells: list[RenderableType] = []
        if current is not None and total is not None and total > 0:
            cells += [
                ProgressBar(total=total, completed=min(current, total), width=_BAR),
                Text(f"{100 * current / total:3.0f} %"),
                Text(f"{current:,g}/{total:,g}", "dim"),
            ]
        elif current is not None:
            cells.append(Text(f"{current:,g}"))
        if message := self._progress.get("message"):
            cells.append(Text(str(message).partition("\n")[0]))
        return cells


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
