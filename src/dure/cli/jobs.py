"""`dure jobs` and `dure job`: the history."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from dure.cli import options, times
from dure.cli import which as by
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl
from dure.errors import UnknownJob

if TYPE_CHECKING:
    from dure.ledger.reads import Page

_HEADS = ("ID", "STATE", "TASK", "QUEUE", "CREATED", "RAN")
_TASK = 2


def jobs(
    state: by.ByState = None,
    reason: by.ByReason = None,
    fingerprint: by.ByFingerprint = None,
    dead: by.Dead = False,
    task: by.ByTask = None,
    queue: by.ByQueue = None,
    worker: by.ByWorker = None,
    tag: by.ByTag = None,
    workflow: by.ByWorkflow = None,
    since: by.Since = None,
    until: by.Until = None,
    text: by.ByText = None,
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

    wanted = JobFilter(
        state=state,
        reason=reason,
        fingerprint=fingerprint,
        dead=dead,
        task=task,
        queue=queue,
        worker=worker,
        tag=tag,
        workflow=workflow,
        since=since,
        until=until,
        text=text,
    )
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
    from rich.text import Text

    from dure.cli import show
    from dure.cli.terminal import err, out

    if not page.jobs:
        err().print("no job fits" if filtered else "no jobs yet; `dure submit` makes one")
        return
    now = time.time()
    cells = [
        (
            *(job.id, show.standing(job), job.task or "–", job.queue or "–"),
            *(times.ago(job.created_at, now), show.ran(job, now)),
        )
        for job in page.jobs
    ]
    widths = [max(map(len, column)) + 2 for column in zip(_HEADS, *cells, strict=True)]
    room = max(20, out().width - sum(widths) + widths[_TASK] - 2)
    listed = show.table(*_HEADS)
    for column in listed.columns:
        column.no_wrap = True
    for column in listed.columns[4:]:
        column.justify = "right"
    for job, (job_id, state, task, *rest) in zip(page.jobs, cells, strict=True):
        listed.add_row(job_id, Text(state, style=show.state(job.state).style), _tail(task, room), *rest)
    out().print(listed)
    if page.next:
        err().print(f"[dim]more: dure jobs … --cursor {page.next}[/]")


def _tail(name: str, room: int) -> str:
    """The end of a name is what tells tasks apart."""
    return name if len(name) <= room else f"…{name[1 - room :]}"
