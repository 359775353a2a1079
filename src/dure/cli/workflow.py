"""`dure workflow` and `dure signal`: one workflow, drawn, and its nodes that wait for somebody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dure.cli import options
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl
from dure.cli.submit import value
from dure.errors import UnknownWorkflow

if TYPE_CHECKING:
    from dure.ledger import Ledger
    from dure.ledger.flows import WorkflowView

_LINES = 100


def workflow(
    workflow_id: Annotated[
        str, typer.Argument(metavar="ID", help="The workflow's id; of a Celery canvas its root's or its group's.")
    ],
    once: Annotated[bool, typer.Option("--once", help="Draw it once, also on a terminal.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Draw every node, however many; once.")] = False,
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Draw a workflow as a tree: on a terminal with live states until it has ended, in a pipe once."""
    from dure.cli.overview import overview
    from dure.cli.session import ask_ledger
    from dure.cli.terminal import out, print_answer

    settings = options.settings(broker_url, ledger_url, home)
    if out().is_terminal and not (once or every or as_json):
        ask_ledger(settings, lambda ledger: _redraw(ledger, workflow_id))
        return
    view = ask_ledger(settings, lambda ledger: _look(ledger, workflow_id))
    if as_json:
        from dure.view import whole_workflow_view

        print_answer(whole_workflow_view(view))
    else:
        out().print(overview(view, out(), room=None if every else _LINES))


def signal(
    workflow_id: Annotated[str, typer.Argument(metavar="ID", help="The workflow's id.")],
    node: Annotated[str, typer.Argument(help="The name of a node that waits.")],
    payload: Annotated[str | None, typer.Argument(metavar="JSON", help="What it ends with; null if not given.")] = None,
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Give a waiting node of a workflow its signal."""
    from dure.cli.session import ask_dure
    from dure.cli.show import print_record
    from dure.cli.terminal import out
    from dure.job import State

    told = None if payload is None else value(payload)
    settings = options.settings(broker_url, ledger_url, home)
    job = ask_dure(settings, lambda dure: dure.signal(workflow_id, node, told))
    if as_json:
        print_record(job)
    elif job.state is State.SUCCESS:
        out().print(f"{node} has its signal", markup=False)
    else:
        out().print(f"{node} has its signal, and ends when what it needs has ended", markup=False)


async def _redraw(ledger: Ledger, workflow_id: str) -> None:
    from dure.cli.redraw import redraw
    from dure.cli.terminal import out

    await redraw(lambda: _look(ledger, workflow_id), out())


async def _look(ledger: Ledger, workflow_id: str) -> WorkflowView:
    view = await ledger.workflow_view(workflow_id)
    if view is None:
        raise UnknownWorkflow(workflow_id)
    return view
