"""`dure watch`: follow one job, or a workflow, to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dure.cli import options
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl
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
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Watch a job or a workflow until it ends, then print its result or its error."""
    from dure.cli.session import ask_dure
    from dure.cli.show import print_outcome

    settings = options.settings(broker_url, ledger_url, home)
    job = ask_dure(settings, lambda dure: _watch(dure, job_id, timeout, as_json=as_json))
    if job is not None:
        print_outcome(job, as_json=as_json)


async def _watch(dure: Dure, job_id: str, timeout: float | None, *, as_json: bool) -> Job | None:
    """None for a workflow, whose result is printed then."""
    from dure.cli.follow import follow, follow_workflow

    try:
        handle = await dure.handle(job_id)
    except UnknownJob as exc:
        try:
            flow = await dure.workflow_handle(job_id)
        except UnknownWorkflow:
            raise exc from None
        await follow_workflow(dure, flow, timeout, as_json=as_json)
        return None
    return await follow(dure, handle, timeout)
