"""A job and its outcome on the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.json import JSON
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dure.cli import times
from dure.cli.codes import Code
from dure.cli.report import show_error
from dure.cli.terminal import out, print_answer, print_json
from dure.job import JobError, Reason, State

if TYPE_CHECKING:
    from dure.job import Job

_CELL = 80
_WHERE_SAID = (
    *("priority", "retries", "time_limit", "unique_key", "origin"),
    *("root_id", "parent_id", "group_id", "retry_of"),
    *("workflow_id", "node", "replaced_by"),
)
_LABELS = {"workflow_id": "workflow"}

_STYLES = {
    State.SUCCESS: "green",
    State.FAILURE: "red",
    State.REVOKED: "magenta",
    State.STARTED: "cyan",
    State.RETRY: "yellow",
}


def state(value: State) -> Text:
    return Text(value.value, style=_STYLES.get(value, "blue"))


def standing(job: Job) -> str:
    """The state, with the reason where that says more."""
    plain = job.reason is None or job.reason in (Reason.ERROR, Reason.REVOKED)
    return job.state.value if plain else f"{job.state.value} {job.reason}"


def ran(job: Job, now: float) -> str:
    if job.runtime is not None:
        return times.span(job.runtime)
    if job.state is State.STARTED and job.started_at:
        return f"{times.span(max(0.0, now - job.started_at))} …"
    return "–"


def table(*columns: str, no_wrap: bool = False, **options: Any) -> Table:
    """A list: bold heads, two spaces between columns."""
    listed = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0), **options)
    for column in columns:
        listed.add_column(column, no_wrap=no_wrap)
    return listed


def beginning(job: Job, width: int = _CELL) -> Text:
    """The first line of what went wrong, cut to a table's cell."""
    if job.error is None:
        return Text("–")
    message = job.error.message.strip().partition("\n")[0]
    told = Text.assemble((job.error.type.rpartition(".")[2], "red"), f": {message}" if message else "")
    told.truncate(width, overflow="ellipsis")
    return told


def print_outcome(job: Job, *, as_json: bool) -> None:
    """The result on stdout, or the error on stderr and exit code 1."""
    if as_json:
        print_record(job)
    elif job.state is State.SUCCESS:
        print_json(msgspec.json.encode(job.result) if job.result_repr is None else job.result_repr.encode())
    else:
        show_error(f"{job.task} ended {job.state}", *_failure(job))
    if job.state is not State.SUCCESS:
        raise typer.Exit(Code.FAILED)


def print_record(job: Job) -> None:
    from dure.view import job_view

    print_answer(job_view(job))


def print_job(job: Job) -> None:
    now = time.time()
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _fields(job, now):
        grid.add_row(name, value)
    parts: list[RenderableType] = [grid]
    if job.error is not None:
        parts += [Text(), *_error(job.error)]
    title = Text.assemble((job.task or "(task unknown)", "bold"), "  ", state(job.state))
    out().print(Panel(Group(*parts), title=title, title_align="left", width=min(out().width, 120)))


def _fields(job: Job, now: float) -> Iterator[tuple[str, RenderableType]]:
    yield "id", Text(job.id, no_wrap=True)
    if job.reason:
        yield "reason", Text(job.reason)
    if job.fingerprint:
        yield "fingerprint", Text(job.fingerprint)
    yield "queue", Text(job.queue or "–")
    if job.worker:
        yield "worker", Text(job.worker)
    yield "args", _value(job.args, job.args_repr)
    yield "kwargs", _value(job.kwargs, job.kwargs_repr)
    for name in _WHERE_SAID:
        value = getattr(job, name)
        if value is not None and value != job.id and (name, value) != ("origin", "dure"):
            yield _LABELS.get(name, name.replace("_", " ")), Text(str(value))
    if job.tags:
        yield "tags", Text(", ".join(job.tags))
    if job.attempts:
        yield "attempts", Text(str(job.attempts))
    yield from _moments(job, now)
    if job.state is State.SUCCESS:
        yield "result", _value(job.result, job.result_repr)


def _moments(job: Job, now: float) -> Iterator[tuple[str, Text]]:
    """Each with the time since the one before it, which is where a job's time went."""
    before: float | None = None
    for name in ("created", "queued", "received", "started", "finished"):
        at = getattr(job, f"{name}_at")
        if at is None:
            continue
        passed = times.ago(at, now) if before is None else f"+{times.span(max(0.0, at - before))}"
        yield name, Text.assemble(times.clock(at), ("  " + passed, "dim"))
        before = at
    for name, at in (("eta", job.eta), ("expires", job.expires)):
        if at is not None:
            yield name, Text.assemble(times.clock(at), ("  " + times.ago(at, now), "dim"))
    if job.cancel_requested_at is not None:
        at = job.cancel_requested_at
        yield "cancel asked", Text.assemble(times.clock(at), ("  " + times.ago(at, now), "dim"))
    if job.runtime is not None:
        yield "runtime", Text(times.span(job.runtime))


def _value(value: Any, told: str | None) -> RenderableType:
    """`told` is what a stock worker's event said of a value that is not known itself."""
    if told is not None and value is None:
        return Text(told)
    text = msgspec.json.encode(value).decode()
    return JSON(text, indent=None if len(text) < 80 else 2)


def _failure(job: Job) -> Iterator[RenderableType]:
    yield Text.assemble((job.id, "dim"), (f"  {job.reason}" if job.reason else "", "bold"))
    if job.error is not None:
        yield from _error(job.error)


def _error(error: JobError) -> Iterator[RenderableType]:
    yield Text.assemble((error.type, "bold red"), ": ", error.message)
    if error.traceback:
        yield Text(error.traceback.rstrip(), style="dim")
