"""Sending jobs again, as `dure retry` and `dure dead retry` share it: what is changed, how fast, and what is told."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from dure.cli import times
from dure.cli.codes import Code
from dure.cli.submit import named_value
from dure.job import State

if TYPE_CHECKING:
    from dure.client import Edits, Resent
    from dure.job import Job
    from dure.ledger import JobFilter
    from dure.settings import Settings

_CHANGED = "What is changed"
_MANY = "Many"

Args = Annotated[
    str | None,
    typer.Option("--args", metavar="JSON", help="A list, in place of all positions.", rich_help_panel=_CHANGED),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A named argument; repeatable.", rich_help_panel=_CHANGED),
]
To = Annotated[
    str | None, typer.Option("--to", "-q", metavar="QUEUE", help="Send there instead.", rich_help_panel=_CHANGED)
]
Priority = Annotated[int | None, typer.Option("--priority", help="0 to 9, higher first.", rich_help_panel=_CHANGED)]
Delay = Annotated[
    float | None,
    typer.Option(
        "--delay", parser=times.duration, metavar="TIME", help="Wait so long first.", rich_help_panel=_CHANGED
    ),
]
Retries = Annotated[
    int | None, typer.Option("--retries", help="Try a failed job so often again.", rich_help_panel=_CHANGED)
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        parser=times.duration,
        metavar="TIME",
        help="Longest run of one attempt.",
        rich_help_panel=_CHANGED,
    ),
]

Rate = Annotated[
    float | None, typer.Option("--rate", metavar="N", help="So many a second; else at once.", rich_help_panel=_MANY)
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The oldest so many.", rich_help_panel=_MANY)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be sent again.", rich_help_panel=_MANY)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.", rich_help_panel=_MANY)]


def edits(args: str | None, given: Sequence[str] | None, **options: Any) -> Edits:
    from dure.client import Edits

    return Edits(
        args=None if args is None else _list(args),
        kwargs=dict(named_value(text, "--set") for text in given or ()),
        options={name: value for name, value in options.items() if value is not None},
    )


def resend(
    settings: Settings,
    wanted: JobFilter,
    changed: Edits,
    *,
    rate: float | None,
    limit: int,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Ask first, where somebody can answer; send; tell."""
    from dure.cli.session import ask_dure

    def ask(*, dry: bool) -> Resent:
        return ask_dure(settings, lambda dure: dure.retry_many(wanted, changed, rate=rate, limit=limit, dry_run=dry))

    if not (dry_run or yes) and _is_asked():
        matched = ask(dry=True).matched
        if matched and not typer.confirm(f"Send {_so_many(matched, limit)} again{_pace(rate)}?", err=True):
            raise typer.Abort
    resent = ask(dry=dry_run)
    if as_json:
        from dure.cli.terminal import print_answer
        from dure.view import resent_view

        print_answer(resent_view(resent))
    elif dry_run:
        _print_matched(resent, limit)
    else:
        _print_resent(resent, rate)
    if resent.skipped:
        raise typer.Exit(Code.FAILED)


def _is_asked() -> bool:
    return sys.stdin.isatty()


def _list(text: str) -> list[Any]:
    try:
        return msgspec.json.decode(text, type=list[Any])
    except msgspec.MsgspecError as exc:
        raise typer.BadParameter(f"{text!r} is not a list in JSON: {exc}", param_hint="--args") from None


def _so_many(matched: int, limit: int) -> str:
    if matched > limit:
        return f"the oldest {limit} of {matched} jobs"
    return _count(matched)


def _count(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs} jobs"


def _pace(rate: float | None) -> str:
    return "" if rate is None else f", {rate:g} a second"


def _print_matched(resent: Resent, limit: int) -> None:
    from dure.cli.terminal import err, out

    if not resent.jobs:
        err().print("no job fits that could be sent again")
        return
    out().print(_listed(resent.jobs))
    shown = f"; the first {len(resent.jobs)} are shown" if len(resent.jobs) < resent.matched else ""
    err().print(f"{_so_many(resent.matched, limit)} would be sent again{shown}")


def _listed(jobs: Sequence[Job]) -> Any:
    from dure.cli.show import beginning, table

    now = time.time()
    listed = table("ID", "TASK", "REASON", "ENDED", "ERROR", no_wrap=True)
    for job in jobs:
        listed.add_row(job.id, job.task or "–", job.reason or "–", times.ago(job.finished_at, now), beginning(job))
    return listed


def _print_resent(resent: Resent, rate: float | None) -> None:
    from rich.text import Text

    from dure.cli.terminal import err, out

    if not resent.jobs and not resent.skipped:
        err().print("no job fits that could be sent again")
        return
    out().print(_told(resent, rate))
    for skipped in resent.skipped:
        err().print(Text.assemble(("skipped ", "yellow"), skipped.id, f": {skipped.error}"))


def _told(resent: Resent, rate: float | None) -> str:
    sent, skipped = len(resent.jobs), len(resent.skipped)
    told = f"sent {_count(sent)} again"
    if skipped:
        told += f", skipped {skipped}"
    if resent.matched > sent + skipped:
        told += f", of {resent.matched} that match"
    last = max((job.eta or 0.0 for job in resent.jobs if job.state is State.SCHEDULED), default=0.0)
    if rate is not None and last:
        told += f"{_pace(rate)}; the last is queued {times.ago(last, time.time())}"
    return told
