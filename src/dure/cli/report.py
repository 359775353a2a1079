"""An expected error, as one short panel on stderr: what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from dure.cli.terminal import err
from dure.errors import (
    ConfigurationError,
    DureError,
    IdempotencyConflict,
    InvalidCursor,
    InvalidSubmission,
    JobEnded,
    JobNotEnded,
    LedgerUnavailable,
    LinkDown,
    ResultTimeout,
    UnknownJob,
    UnknownNode,
    UnknownTask,
    UnknownWorkflow,
    WorkflowEnded,
    WorkflowFailed,
    WorkflowNotEnded,
)


def report(error: DureError) -> None:
    show_error(_title(error), *_lines(error))


def report_file(error: OSError) -> None:
    show_error(
        "A file cannot be used",
        Text.assemble((str(error.filename), "bold"), f": {error.strerror}"),
        remedy("choose a folder that this user can write with --home or DURE_HOME"),
    )


def show_error(title: str, *lines: RenderableType) -> None:
    console = err()
    body = Group(*lines)
    width = min(console.width, 120)
    console.print(Panel(body, title=escape(title), title_align="left", border_style="red", width=width))


def remedy(text: str) -> Text:
    return Text.assemble(("→ ", "bold"), text)


def _title(error: DureError) -> str:
    return next((title for kind, title in _TITLES.items() if isinstance(error, kind)), "Error")


_TITLES: dict[type[DureError], str] = {
    ConfigurationError: "Configuration",
    InvalidSubmission: "Not submitted",
    UnknownTask: "Unknown task",
    UnknownJob: "Unknown job",
    JobEnded: "The job has ended",
    JobNotEnded: "The job has not ended",
    UnknownWorkflow: "Unknown workflow",
    UnknownNode: "No such node",
    WorkflowEnded: "The workflow has ended",
    WorkflowNotEnded: "The workflow has not ended",
    WorkflowFailed: "The workflow failed",
    IdempotencyConflict: "Not submitted",
    ResultTimeout: "Timeout",
    LedgerUnavailable: "The ledger is unavailable",
    LinkDown: "The broker is unavailable",
}


_OF_A_TASK = {"task", "args", "kwargs"}


@singledispatch
def _lines(error: DureError) -> Iterator[RenderableType]:
    yield Text(str(error))


@_lines.register
def _(error: ConfigurationError) -> Iterator[RenderableType]:
    for problem in error.problems:
        yield Text.assemble((problem.place, "bold"), ": ", problem.message)
        yield remedy(problem.remedy)


@_lines.register
def _(error: InvalidSubmission) -> Iterator[RenderableType]:
    for wrong in error.errors:
        yield Text.assemble((".".join(map(str, wrong.loc)), "bold"), ": ", wrong.message)
    if any(_OF_A_TASK.intersection(wrong.loc) for wrong in error.errors):
        yield remedy("`dure tasks` shows what each task takes")


@_lines.register
def _(error: UnknownTask) -> Iterator[RenderableType]:
    yield Text.assemble("no worker has announced a task named ", (error.name, "bold"))
    if error.near:
        yield remedy(f"did you mean {' or '.join(error.near)}?")
    else:
        yield remedy("`dure tasks` lists what workers announced; --force submits it all the same")


@_lines.register
def _(error: UnknownJob) -> Iterator[RenderableType]:
    yield Text.assemble("nobody submitted a job with the id ", (error.job_id, "bold"))
    yield remedy("`dure jobs` lists jobs, newest first")


@_lines.register
def _(error: JobEnded) -> Iterator[RenderableType]:
    yield Text(str(error))
    yield remedy(f"dure job {error.job.id}")


@_lines.register
def _(error: JobNotEnded) -> Iterator[RenderableType]:
    yield Text(str(error))
    yield remedy(f"wait for its end with `dure watch {error.job.id}`, or end it with `dure cancel {error.job.id}`")


@_lines.register
def _(error: UnknownWorkflow) -> Iterator[RenderableType]:
    yield Text.assemble("nobody submitted a workflow with the id ", (error.workflow_id, "bold"))
    yield remedy("`dure workflows` lists workflows, newest first")


@_lines.register
def _(error: UnknownNode) -> Iterator[RenderableType]:
    yield Text(str(error))
    yield remedy(f"`dure workflow {error.workflow_id}` shows its nodes")


@_lines.register
def _(error: WorkflowEnded) -> Iterator[RenderableType]:
    yield Text(str(error))
    yield remedy(f"dure workflow {error.workflow.id}")


@_lines.register
def _(error: WorkflowNotEnded) -> Iterator[RenderableType]:
    workflow_id = error.workflow.id
    yield Text(str(error))
    yield remedy(f"dure retry {workflow_id} --node NAME, or end it first with `dure cancel {workflow_id}`")


@_lines.register
def _(error: WorkflowFailed) -> Iterator[RenderableType]:
    workflow, job = error.workflow, error.job
    yield Text.assemble((workflow.id, "dim"), (f"  {workflow.reason}" if workflow.reason else "", "bold"))
    if job is not None:
        reason = f" ({job.reason})" if job.reason else ""
        yield Text.assemble("node ", (job.node or job.id, "bold"), f" ended {job.state}{reason}")
        if job.error is not None:
            yield Text.assemble((job.error.type, "bold red"), ": ", job.error.message)
        yield remedy(f"dure job {job.id}")
    yield remedy(f"dure retry {workflow.id}")


@_lines.register
def _(error: IdempotencyConflict) -> Iterator[RenderableType]:
    yield Text(str(error))
    yield remedy("take a key of its own for each request, and the same one only to repeat it")


@_lines.register
def _(error: ResultTimeout) -> Iterator[RenderableType]:
    yield Text(f"it had not ended after {error.timeout:g} s, and goes on")
    yield remedy(f"dure watch {error.job_id}")


@_lines.register
def _(error: LedgerUnavailable) -> Iterator[RenderableType]:
    yield Text(error.detail)
    yield remedy("look at --ledger-url, DURE_LEDGER_URL and --home; `dure check` tests them")


@_lines.register
def _(error: LinkDown) -> Iterator[RenderableType]:
    yield Text.assemble((error.url, "bold"), ": ", error.detail)
    yield remedy("look at --broker-url and DURE_BROKER_URL; `dure check` tests them")


@_lines.register
def _(error: InvalidCursor) -> Iterator[RenderableType]:
    yield Text(str(error))
    yield remedy("take the cursor that `dure jobs` printed below its page")
