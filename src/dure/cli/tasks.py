"""`dure tasks`: what workers have announced."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from dure.cli import options, times
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl
from dure.cli.signature import signature

if TYPE_CHECKING:
    from dure.task import Task


def tasks(
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="Only names with this in them.")] = "",
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """List the tasks that workers have announced."""
    from dure.cli.session import ask_ledger

    settings = options.settings(broker_url, ledger_url, home)
    found = [task for task in ask_ledger(settings, lambda ledger: ledger.tasks()) if text.lower() in task.name.lower()]
    if as_json:
        from dure.cli.terminal import print_answer
        from dure.view import task_view

        print_answer({"tasks": [task_view(task) for task in found]})
    else:
        _print(found)


def _print(found: list[Task]) -> None:
    from rich.text import Text

    from dure.cli.show import table
    from dure.cli.terminal import err, out

    if not found:
        err().print("no worker has announced a task; `dure up` or `dure worker` starts one")
        return
    now = time.time()
    listed = table("TASK", "QUEUE", "ANNOUNCED")
    for column in listed.columns[1:]:
        column.no_wrap = True
    for task in found:
        call = Text.assemble((task.name, "bold"), signature(task))
        doc = (task.doc or "").strip().partition("\n")[0]
        if doc:
            call.append(f"\n{doc}", style="dim")
        listed.add_row(call, task.queue or "–", times.ago(task.announced_at, now))
    out().print(listed)
