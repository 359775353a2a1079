"""`dure run`: a workflow, from a file."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from dure.cli import options
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl
from dure.cli.times import ago, duration

if TYPE_CHECKING:
    from dure.client import Dure


def run(
    file: Annotated[
        typer.FileText,
        typer.Argument(metavar="FILE", encoding="utf-8", help="The workflow in JSON; - reads standard input."),
    ],
    idempotency_key: Annotated[
        str | None, typer.Option(help="Names this submission; a repeat makes no second workflow.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if no worker has announced a task of it.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Draw it until its end, and print the result.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="With --wait: no longer than this; then exit 4."),
    ] = None,
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Submit a workflow and print its id; with --wait draw it, and print its result."""
    from dure.cli.session import ask_dure

    spec = _read(file)
    settings = options.settings(broker_url, ledger_url, home)
    ask_dure(
        settings,
        lambda dure: _run(dure, spec, idempotency_key, force=force, wait=wait, timeout=timeout, as_json=as_json),
        create=force,
    )


def _read(file: typer.FileText) -> Any:
    name = "standard input" if file.name in ("-", "<stdin>") else file.name
    try:
        return json.load(file, parse_constant=_no_json)
    except json.JSONDecodeError as exc:
        raise typer.BadParameter(f"{name}, line {exc.lineno}, column {exc.colno}: {exc.msg}") from None
    except ValueError as exc:  # also of bytes that are no UTF-8
        raise typer.BadParameter(f"{name}: {exc}") from None


def _no_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


async def _run(
    dure: Dure, spec: Any, key: str | None, *, force: bool, wait: bool, timeout: float | None, as_json: bool
) -> None:
    from dure.cli.follow import follow_workflow
    from dure.cli.terminal import err, print_answer
    from dure.client import WorkflowHandle
    from dure.client.once import idempotency
    from dure.view import workflow_view

    draft = await dure.draft_workflow(spec, force=force)
    receipt = await dure.accept_workflow(draft, idempotency(key, draft, dure.settings.idempotency_ttl))
    workflow = receipt.workflow or draft.workflow
    if receipt.replayed:
        err().print(
            f"[yellow]submitted before, {ago(workflow.created_at, time.time())}[/]; no second workflow was made"
        )
    if wait:
        if not as_json:
            err().print(f"[dim]{workflow.id}[/]")
        await follow_workflow(dure, WorkflowHandle(dure, workflow), timeout, as_json=as_json)
    elif as_json:
        print_answer(workflow_view(workflow))
    else:
        typer.echo(workflow.id)
