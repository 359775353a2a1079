"""`dure retry`: ended jobs, sent again, and workflows, run again from what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dure.cli import again, options
from dure.cli import which as by
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl
from dure.errors import UnknownJob, UnknownNode, UnknownWorkflow
from dure.job import State
from dure.workflow import Workflow

if TYPE_CHECKING:
    from dure.client import Dure, Edits
    from dure.job import Job


def retry(
    job_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="Of a job or a workflow; without it, a filter.")
    ] = None,
    node: Annotated[str | None, typer.Option("--node", help="Of a workflow: run it again from this node.")] = None,
    state: by.ByState = None,
    reason: by.ByReason = None,
    fingerprint: by.ByFingerprint = None,
    dead: by.Dead = False,
    task: by.ByTask = None,
    queue: by.ByQueue = None,
    worker: by.ByWorker = None,
    tag: by.ByTag = None,
    since: by.Since = None,
    until: by.Until = None,
    text: by.ByText = None,
    args: again.Args = None,
    given: again.Set = None,
    to: again.To = None,
    priority: again.Priority = None,
    delay: again.Delay = None,
    retries: again.Retries = None,
    time_limit: again.TimeLimit = None,
    rate: again.Rate = None,
    limit: again.Limit = 1000,
    dry_run: again.DryRun = False,
    yes: again.Yes = False,
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Send a job that has ended again, or run a workflow again from what failed; or send all jobs again that fit a
    filter, have failed and were not sent again yet."""
    from dure.cli.session import ask_dure
    from dure.ledger import JobFilter

    wanted = JobFilter(
        state=state,
        reason=reason,
        fingerprint=fingerprint,
        dead=dead,
        task=task,
        queue=queue,
        worker=worker,
        tag=tag,
        since=since,
        until=until,
        text=text,
    )
    if (job_id is None) is (wanted == JobFilter()):
        raise typer.BadParameter("give the id of one job or workflow, or a filter such as --task or --state FAILURE")
    if job_id is not None and (dry_run or rate is not None):
        raise typer.BadParameter("--dry-run and --rate go with a filter")
    if job_id is None and node is not None:
        raise typer.BadParameter("--node goes with the id of a workflow")
    changed = again.edits(args, given, queue=to, priority=priority, delay=delay, retries=retries, time_limit=time_limit)
    settings = options.settings(broker_url, ledger_url, home)
    if job_id is None:
        again.resend(settings, wanted, changed, rate=rate, limit=limit, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    asked = job_id
    ask_dure(settings, lambda dure: _retry(dure, asked, node, changed, as_json=as_json))


async def _retry(dure: Dure, job_id: str, node: str | None, changed: Edits, *, as_json: bool) -> None:
    new = await _sent_again(dure, job_id, changed) if node is None else await _from_node(dure, job_id, node, changed)
    if not as_json:
        typer.echo(new.id)
        if isinstance(new, Workflow):
            await _tell(dure, new)
    elif isinstance(new, Workflow):
        from dure.cli.terminal import print_answer
        from dure.view import workflow_view

        print_answer(workflow_view(new))
    else:
        from dure.cli.show import print_record

        print_record(new)


async def _sent_again(dure: Dure, job_id: str, changed: Edits) -> Job | Workflow:
    from dure.client import Edits

    try:
        return (await dure.retry(job_id, changed)).job
    except UnknownJob:
        if await dure.ledger.workflow(job_id) is None:
            raise
    if changed != Edits():
        raise typer.BadParameter("what is changed is a job's, or a node's: add --node NAME")
    return await dure.retry_workflow(job_id)


async def _from_node(dure: Dure, workflow_id: str, node: str, changed: Edits) -> Workflow:
    from dure.client import Edits

    if changed == Edits():
        return await dure.retry_workflow(workflow_id, node=node)
    job = await dure.ledger.node(workflow_id, node)
    workflow = await dure.ledger.workflow(workflow_id)
    if workflow is None:
        raise UnknownWorkflow(workflow_id)
    if job is None:
        raise UnknownNode(workflow_id, node)
    await dure.retry(job.id, changed)
    return await dure.ledger.workflow(workflow_id) or workflow


async def _tell(dure: Dure, workflow: Workflow) -> None:
    from dure.cli.terminal import err

    view = await dure.ledger.workflow_view(workflow.id, nodes=False)
    if view is not None:
        kept = view.counts.get(State.SUCCESS, 0)
        err().print(f"[dim]nodes: {kept:,} kept, {sum(view.counts.values()) - kept:,} to run or to wait for those[/]")
