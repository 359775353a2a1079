"""`dure submit`: one job, from the shell."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from dure.cli import options
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl
from dure.cli.times import ago, deadline, duration, moment

if TYPE_CHECKING:
    from dure.client import Dure, Submission
    from dure.job import Job

_HOW = "How it is run"
_ONCE = "Once"


class Moment(StrEnum):
    """Until when a job holds its unique key."""

    STARTED = "started"
    FINISHED = "finished"


def submit(
    task: Annotated[str, typer.Argument(help="The task's name; `dure tasks` lists them.")],
    args: Annotated[
        list[str] | None,
        typer.Argument(help="Each as JSON: 2, true, null, '{\"a\": [1]}'; the rest is a string."),
    ] = None,
    kwarg: Annotated[
        list[str] | None, typer.Option("--kwarg", "-k", metavar="NAME=VALUE", help="A named argument; repeatable.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Else the task's own.", rich_help_panel=_HOW)] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 9, higher first.", rich_help_panel=_HOW)] = None,
    delay: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="Wait so long first: 90, 10m, 2h.", rich_help_panel=_HOW),
    ] = None,
    eta: Annotated[
        Any, typer.Option(parser=moment, metavar="MOMENT", help="Wait until then (ISO 8601).", rich_help_panel=_HOW)
    ] = None,
    expires: Annotated[
        Any,
        typer.Option(
            parser=deadline, metavar="TIME|MOMENT", help="Do not begin later than this.", rich_help_panel=_HOW
        ),
    ] = None,
    retries: Annotated[int | None, typer.Option(help="Try a failed job so often again.", rich_help_panel=_HOW)] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="Longest run of one attempt.", rich_help_panel=_HOW),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="A word to find it by; repeatable.", rich_help_panel=_HOW)
    ] = None,
    unique_key: Annotated[
        str | None,
        typer.Option("--unique-key", help="Make no second job while one holds this key.", rich_help_panel=_ONCE),
    ] = None,
    unique_until: Annotated[
        Moment | None, typer.Option(case_sensitive=False, help="It is held till then.", rich_help_panel=_ONCE)
    ] = None,
    unique_for: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="It is held so long instead.", rich_help_panel=_ONCE),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Names this submission; a repeat makes no second job.", rich_help_panel=_ONCE),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if no worker has announced the task.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end and print the result.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="With --wait: no longer than this; then exit 4."),
    ] = None,
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Submit a job and print its id; with --wait its result."""
    from dure.cli.session import ask_dure
    from dure.client import Submission

    given = {
        "queue": queue,
        "priority": priority,
        "delay": delay,
        "eta": eta,
        "expires": expires,
        "retries": retries,
        "time_limit": time_limit,
        "tags": tag or None,
        "unique_key": unique_key,
        "unique_until": unique_until and unique_until.value,
        "unique_for": unique_for,
    }
    submission = Submission(
        task=task,
        args=[value(text) for text in args or ()],
        kwargs=dict(map(named_value, kwarg or ())),
        options={name: option for name, option in given.items() if option is not None},
        force=force,
    )
    settings = options.settings(broker_url, ledger_url, home)
    job = ask_dure(
        settings,
        lambda dure: _submit(dure, submission, idempotency_key, wait=wait, timeout=timeout, as_json=as_json),
        create=force,
    )
    _print(job, wait=wait, as_json=as_json)


async def _submit(
    dure: Dure, submission: Submission, key: str | None, *, wait: bool, timeout: float | None, as_json: bool
) -> Job:
    from dure.cli.follow import follow
    from dure.cli.terminal import err
    from dure.client.once import idempotency

    drafts = [await dure.draft(submission)]
    receipt = await dure.accept(drafts, idempotency(key, [submission], dure.settings.idempotency_ttl))
    (job,) = receipt.jobs
    if not receipt.created:
        since = ago(job.created_at, time.time())
        why = f"submitted before, {since}" if receipt.replayed else f"a job of {since} holds the unique key"
        err().print(f"[yellow]{why}[/]; no second job was made")
    if not wait:
        return job
    if not as_json:
        err().print(f"[dim]{job.id}[/]")
    return await follow(dure, job.id, timeout)


def _print(job: Job, *, wait: bool, as_json: bool) -> None:
    from dure.cli.show import print_outcome, print_record

    if wait:
        print_outcome(job, as_json=as_json)
    elif as_json:
        print_record(job)
    else:
        typer.echo(job.id)


def value(text: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        if text.startswith("-"):
            raise typer.BadParameter(f"{text} is no option; as an argument, write '\"{text}\"'") from None
        return text


def named_value(text: str, option: str = "--kwarg") -> tuple[str, Any]:
    name, equals, rest = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return name, value(rest)
