"""`dure cancel`: jobs that are not to run, or not to run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dure.cli import options
from dure.cli.codes import code_of
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl
from dure.errors import DureError, JobEnded, UnknownJob
from dure.job import State

if TYPE_CHECKING:
    from dure.client import Dure
    from dure.job import Job


def cancel(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of jobs.")],
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Cancel jobs: what nobody has begun never runs, what runs is ended where its worker's pool can."""
    from dure.cli.report import report
    from dure.cli.session import ask_dure

    jobs, wrong = ask_dure(options.settings(broker_url, ledger_url, home), lambda dure: _cancel(dure, job_ids))
    if as_json:
        from dure.cli.terminal import print_answer
        from dure.view import job_view

        print_answer({"jobs": [job_view(job) for job in jobs]})
    elif jobs:
        _print(jobs)
    for error in wrong:
        report(error)
    if wrong:
        raise typer.Exit(code_of(wrong[0]))


async def _cancel(dure: Dure, job_ids: list[str]) -> tuple[list[Job], list[DureError]]:
    """One that cannot be cancelled keeps no other from it."""
    jobs: list[Job] = []
    wrong: list[DureError] = []
    for job_id in job_ids:
        try:
            jobs.append(await dure.cancel(job_id))
        except (UnknownJob, JobEnded) as exc:
            wrong.append(exc)
    return jobs, wrong


def _print(jobs: list[Job]) -> None:
    from dure.cli import show
    from dure.cli.terminal import out

    listed = show.table("ID", "STATE", "TASK", "", no_wrap=True)
    for job in jobs:
        note = "" if job.state is State.REVOKED else f"runs on {job.worker or 'a worker'}, which was asked to end it"
        listed.add_row(job.id, show.state(job.state), job.task or "–", note)
    out().print(listed)
