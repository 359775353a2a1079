"""`dure jobs` and `dure job`: the history."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from dure.cli import options, times
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl
from dure.errors import UnknownJob
from dure.job import State

if TYPE_CHECKING:
    from dure.job import Job
    from dure.ledger.reads import Page

_FILTERS = "Which"
_HEADS = ("ID", "STATE", "TASK", "QUEUE", "CREATED", "RAN")
_TASK = 2


def jobs(
    state: Annotated[State | None, typer.Option(case_sensitive=False, rich_help_panel=_FILTERS)] = None,
    task: Annotated[str | None, typer.Option(help="The task's whole name.", rich_help_panel=_FILTERS)] = None,
    queue: Annotated[str | None, typer.Option(rich_help_panel=_FILTERS)] = None,
    worker: Annotated[str | None, typer.Option(help="Such as celery@host.", rich_help_panel=_FILTERS)] = None,
    tag: Annotated[str | None, typer.Option(rich_help_panel=_FILTERS)] = None,
    since: Annotated[
        float | None,
        typer.Option(parser=times.past, metavar="TIME|MOMENT", help="10m ago, or ISO 8601.", rich_help_panel=_FILTERS),
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(parser=times.past, metavar="TIME|MOMENT", help="And before this.", rich_help_panel=_FILTERS),
    ] = None,
    text: Annotated[str | None, typer.Option(help="In the arguments.", rich_help_panel=_FILTERS)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Jobs on one page.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The page that an earlier one named.")] = None,
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """List jobs, newest first."""
    from dure.cli.session import ask_ledger
    from dure.cli.terminal import print_answer
    from dure.ledger.reads import JobFilter

    wanted = JobFilter(state=state, task=task, queue=queue, worker=worker, tag=tag, since=since, until=until, text=text)
    settings = options.settings(broker_url, ledger_url, home)
    page = ask_ledger(settings, lambda ledger: ledger.jobs(wanted, cursor=cursor, limit=limit))
    if as_json:
        from dure.view import job_view

        print_answer({"jobs": [job_view(found) for found in page.jobs], "next": page.next})
    else:
        _print_page(page, filtered=wanted != JobFilter())


def job(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Show the whole record of a job."""
    from dure.cli.session import ask_ledger
    from dure.cli.show import print_job, print_record

    found = ask_ledger(options.settings(broker_url, ledger_url, home), lambda ledger: ledger.job(job_id))
    if found is None:
        raise UnknownJob(job_id)
    if as_json:
        print_record(found)
    else:
        print_job(found)


def _print_page(page: Page, *, filtered: bool) -> None:
    from dure.cli import show
    from dure.cli.terminal import err, out

    if not page.jobs:
        err().print("no job fits" if filtered else "no jobs yet; `dure submit` makes one")
        return
    now = time.time()
    cells = [
        (job.id, job.state.value, job.task or "–", job.queue or "–", times.ago(job.created_at, now), _ran(job, now))
        for job in page.jobs
    ]
    widths = [max(map(len, column)) + 2 for column in zip(_HEADS, *cells, strict=True)]
    room = max(20, out().width - sum(widths) + widths[_TASK] - 2)
    listed = show.table(*_HEADS)
    for column in listed.columns:
        column.no_wrap = True
    for column in listed.columns[4:]:
        column.justify = "right"
    for job_id, state, task, *rest in cells:
        listed.add_row(job_id, show.state(State(state)), _tail(task, room), *rest)
    out().print(listed)
    if page.next:
        err().print(f"[dim]more: dure jobs … --cursor {page.next}[/]")


def _tail(name: str, room: int) -> str:
    """The end of a name is what tells tasks apart."""
    return name if len(name) <= room else f"…{name[1 - room :]}"


def _ran(found: Job, now: float) -> str:
    if found.runtime is not None:
        return times.span(found.runtime)
    if found.state is State.STARTED and found.started_at:
        return f"{times.span(max(0.0, now - found.started_at))} …"
    return "–"
