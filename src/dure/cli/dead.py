"""`dure dead`: what could not be run, in groups that ended alike; `dure dead retry` sends a group again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dure.cli import again, options, times
from dure.cli import which as by
from dure.cli.codes import EPILOG, Code
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl

if TYPE_CHECKING:
    from dure.ledger import Group

_HEADS = ("COUNT", "FINGERPRINT", "TASK", "REASON", "LAST SEEN", "ERROR")

dead = typer.Typer(rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)


@dead.callback(invoke_without_command=True, epilog=EPILOG)
def groups(
    context: typer.Context,
    task: by.ByTask = None,
    queue: by.ByQueue = None,
    reason: by.ByReason = None,
    since: by.Since = None,
    until: by.Until = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most groups.")] = 50,
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """List dead letters that were not sent again, in groups that ended alike."""
    if context.invoked_subcommand is not None:
        return
    from dure.cli.session import ask_ledger
    from dure.ledger import JobFilter

    settings = options.settings(broker_url, ledger_url, home)
    wanted = JobFilter(dead=True, retried=False, task=task, queue=queue, reason=reason, since=since, until=until)
    found = ask_ledger(settings, lambda ledger: ledger.group_jobs(wanted, limit=limit))
    if as_json:
        from dure.cli.terminal import print_answer
        from dure.view import group_view

        print_answer({"groups": [group_view(group) for group in found]})
    else:
        _print(found)


@dead.command("retry", epilog=EPILOG)
def retry(
    fingerprint: Annotated[str, typer.Argument(help="The group's; `dure dead` lists them.")],
    task: by.ByTask = None,
    reason: by.ByReason = None,
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
    """Send the dead letters of a group again that were not sent again yet."""
    from dure.cli.session import ask_ledger
    from dure.ledger import JobFilter

    settings = options.settings(broker_url, ledger_url, home)
    wanted = JobFilter(dead=True, fingerprint=fingerprint, task=task, reason=reason)
    changed = again.edits(args, given, queue=to, priority=priority, delay=delay, retries=retries, time_limit=time_limit)
    if not ask_ledger(settings, lambda ledger: ledger.count_jobs(wanted)):
        _tell_unknown(fingerprint, narrowed=bool(task or reason))
        raise typer.Exit(Code.UNKNOWN)
    again.resend(settings, wanted, changed, rate=rate, limit=limit, dry_run=dry_run, yes=yes, as_json=as_json)


def _print(found: Sequence[Group]) -> None:
    from dure.cli import show
    from dure.cli.terminal import err, out

    if not found:
        err().print("no dead letters")
        return
    now = time.time()
    listed = show.table(*_HEADS, no_wrap=True)
    listed.columns[0].justify = "right"
    for group in found:
        listed.add_row(
            str(group.count),
            group.fingerprint or "–",
            group.task or "–",
            group.reason or "–",
            times.ago(group.last_at, now),
            show.beginning(group.latest),
        )
    out().print(listed)
    shared = len({group.fingerprint for group in found}) < len(found)
    also = " --task TASK, for several tasks share one" if shared else ""
    err().print(f"[dim]send a group again: dure dead retry FINGERPRINT{also}[/]")


def _tell_unknown(fingerprint: str, *, narrowed: bool) -> None:
    from rich.text import Text

    from dure.cli.report import remedy, show_error

    of_these = " of that task or reason" if narrowed else ""
    show_error(
        "Unknown group",
        Text.assemble("no dead letter", of_these, " has the fingerprint ", (fingerprint, "bold")),
        remedy("`dure dead` lists the groups"),
    )
