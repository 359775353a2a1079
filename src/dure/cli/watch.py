"""`dure watch`: follow one job, or a workflow, to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dure.cli import options
from dure.cli.options import BrokerUrl, Home, LedgerUrl
from dure.cli.times import duration
from dure.errors import UnknownJob, UnknownWorkflow

if TYPE_CHECKING:
    from dure.client import Dure
    from dure.job import Job


def watch(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The id of a job or a workflow.")],
    timeout: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="No longer than this; then exit 4.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as a line of JSON; the last one is the result.")
    ] = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Watch a job or a workflow until it ends: its progress, output and log lines, then its result or its error."""
    from dure.cli.codes import Code
    from dure.cli.session import ask_dure
    from dure.cli.show import print_outcome
    from dure.job import State

    settings = options.settings(broker_url, ledger_url, home)
    job = ask_dure(settings, lambda dure: _watch(dure, job_id, timeout, events=as_json))
    if job is None:
        return
    if not as_json:
        print_outcome(job, as_json=False)
    elif job.state is not State.SUCCESS:
        raise typer.Exit(Code.FAILED)


async def _watch(dure: Dure, job_id: str, timeout: float | None, *, events: bool) -> Job | None:
    """None for a workflow, whose result is printed then."""
    from dure.cli.follow import follow, follow_workflow

    try:
        return await follow(dure, job_id, timeout, events=events)
    except UnknownJob as exc:
        try:
            flow = await dure.workflow_handle(job_id)
        except UnknownWorkflow:
            raise exc from None
        await follow_workflow(dure, flow, timeout, as_json=events, events=events)
        return None
