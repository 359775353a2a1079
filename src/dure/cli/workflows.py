"""`dure workflows`: the history of workflows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from dure.cli import options, times
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl
from dure.job import State

if TYPE_CHECKING:
    from dure.ledger import Ledger
    from dure.ledger.flows import WorkflowPage, WorkflowView


def workflows(
    state: Annotated[
        State | None, typer.Option("--state", case_sensitive=False, help="STARTED, or how they ended.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Workflows on one page.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The page that an earlier one named.")] = None,
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """List workflows, newest first."""
    from dure.cli.session import ask_ledger
    from dure.cli.terminal import print_answer

    settings = options.settings(broker_url, ledger_url, home)
    if as_json:
        from dure.view import workflow_view

        page = ask_ledger(settings, lambda ledger: ledger.workflows(state=state, cursor=cursor, limit=limit))
        print_answer({"workflows": [workflow_view(found) for found in page.workflows], "next": page.next})
    else:
        page, open_ones = ask_ledger(settings, lambda ledger: _page(ledger, state, cursor, limit))
        _print(page, open_ones, filtered=state is not None)


async def _page(
    ledger: Ledger, state: State | None, cursor: str | None, limit: int
) -> tuple[WorkflowPage, dict[str, WorkflowView]]:
    """With how far those are that have not ended."""
    page = await ledger.workflows(state=state, cursor=cursor, limit=limit)
    open_ids = [found.id for found in page.workflows if not found.state.final]
    views = [await ledger.workflow_view(workflow_id, nodes=False) for workflow_id in open_ids]
    return page, {view.workflow.id: view for view in views if view is not None}


def _print(page: WorkflowPage, open_ones: dict[str, WorkflowView], *, filtered: bool) -> None:
    from rich.text import Text

    from dure.cli import overview, show
    from dure.cli.terminal import err, out

    if not page.workflows:
        err().print("no workflow fits" if filtered else "no workflows yet; `dure run FILE` makes one")
        return
    now = time.time()
    listed = show.table("ID", "STATE", "NAME", "DONE", "CREATED", "RAN", no_wrap=True)
    for column in listed.columns[3:]:
        column.justify = "right"
    listed.columns[2].overflow = "ellipsis"
    for found in page.workflows:
        listed.add_row(
            found.id,
            Text(overview.standing(found), style=show.state(found.state).style),
            Text(found.name or "–"),
            overview.done(open_ones[found.id].counts) if found.id in open_ones else "–",
            times.ago(found.created_at, now),
            overview.ran(found, now),
        )
    out().print(listed)
    if page.next:
        err().print(f"[dim]more: dure workflows … --cursor {page.next}[/]")
