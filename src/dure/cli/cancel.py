"""`dure cancel`: jobs and workflows that are not to run, or not to run on."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from dure.cli import options
from dure.cli.codes import code_of
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl
from dure.errors import DureError, JobEnded, UnknownJob, UnknownWorkflow, WorkflowEnded
from dure.job import State
from dure.workflow import Workflow

if TYPE_CHECKING:
    from dure.client import Dure
    from dure.job import Job


def cancel(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of jobs and workflows.")],
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Cancel jobs and workflows: what nobody has begun never runs, what runs is ended where its worker's pool can."""
    from dure.cli.report import report
    from dure.cli.session import ask_dure

    cancelled, wrong = ask_dure(options.settings(broker_url, ledger_url, home), lambda dure: _cancel(dure, ids))
    if as_json:
        from dure.cli.terminal import print_answer
        from dure.view import job_view, workflow_view

        print_answer(
            {
                "jobs": [job_view(each) for each in cancelled if not isinstance(each, Workflow)],
                "workflows": [workflow_view(each) for each in cancelled if isinstance(each, Workflow)],
            }
        )
    elif cancelled:
        _print(cancelled)
    for error in wrong:
        report(error)
    if wrong:
        raise typer.Exit(code_of(wrong[0]))


async def _cancel(dure: Dure, ids: list[str]) -> tuple[list[Job | Workflow], list[DureError]]:
    """One that cannot be cancelled keeps no other from it."""
    cancelled: list[Job | Workflow] = []
    wrong: list[DureError] = []
    for each in ids:
        try:
            cancelled.append(await _cancel_one(dure, each))
        except (UnknownJob, JobEnded, WorkflowEnded) as exc:
            wrong.append(exc)
    return cancelled, wrong


async def _cancel_one(dure: Dure, job_id: str) -> Job | Workflow:
    """No id is both: a canvas of plain Celery code is no workflow that can be cancelled, its root is a job."""
    try:
        return await dure.cancel(job_id)
    except UnknownJob:
        with suppress(UnknownWorkflow):
            return await dure.cancel_workflow(job_id)
        raise


def _print(cancelled: list[Job | Workflow]) -> None:
    from dure.cli import show
    from dure.cli.terminal import out

    listed = show.table("ID", "STATE", "TASK", "", no_wrap=True)
    for each in cancelled:
        name = (each.name or "workflow") if isinstance(each, Workflow) else (each.task or "–")
        listed.add_row(each.id, show.state(each.state), Text(name), _note(each))
    out().print(listed)


def _note(cancelled: Job | Workflow) -> str:
    if cancelled.state is State.REVOKED:
        return ""
    if isinstance(cancelled, Workflow):
        return "nodes of it run, and their workers were asked to end them"
    return f"runs on {cancelled.worker or 'a worker'}, which was asked to end it"
