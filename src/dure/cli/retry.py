"""`dure retry`: ended jobs, sent again."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import again, options
from dure.cli import which as by
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl


def retry(
    job_id: Annotated[str | None, typer.Argument(metavar="ID", help="The job's id; without it, a filter.")] = None,
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
    """Send a job that has ended again, or all that fit a filter, have failed and were not sent again yet."""
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
    filtered = wanted != JobFilter()
    if (job_id is None) is not filtered:
        raise typer.BadParameter("give the id of one job, or a filter such as --task or --state FAILURE")
    if job_id is not None and (dry_run or rate is not None):
        raise typer.BadParameter("--dry-run and --rate go with a filter")
    changed = again.edits(args, given, queue=to, priority=priority, delay=delay, retries=retries, time_limit=time_limit)
    settings = options.settings(broker_url, ledger_url, home)
    if job_id is None:
        again.resend(settings, wanted, changed, rate=rate, limit=limit, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    asked = job_id
    new = ask_dure(settings, lambda dure: dure.retry(asked, changed)).job
    if as_json:
        from dure.cli.show import print_record

        print_record(new)
    else:
        typer.echo(new.id)
