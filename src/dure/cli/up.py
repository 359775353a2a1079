"""`dure up`: everything that a developer needs, in one terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.options import App, BrokerUrl, Home, LedgerUrl, Processes
from dure.cli.serve import Host, Insecure, Port

_GRACE_SECONDS = 10.0


def up(
    ctx: typer.Context,
    app: App = None,
    host: Host = None,
    port: Port = None,
    insecure: Insecure = False,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="COMMAND", help="Run this beside them, supervised alike; repeatable."),
    ] = None,
    processes: Processes = 1,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Run gateway and worker in front, restarted when they die, until Ctrl-C.

    With no settings at all it needs no server: broker and ledger are files in [b].dure[/b]. The application's own
    broker and result backend are set aside for those that Dure's settings name.

    Every other option goes to Celery's worker: [b]dure up -A shop -Q mail,reports -c 8[/b].
    """
    import asyncio

    from dure.cli import welcome
    from dure.cli.output import Terminal
    from dure.cli.stack import plan
    from dure.cli.supervisor import Supervisor

    settings = options.settings(broker_url, ledger_url, home, host=host, port=port, insecure=insecure or None)
    settings.require_closed()
    stack = plan(settings, options.required(app), worker_options=ctx.args, commands=with_ or (), processes=processes)
    output = Terminal([program.name for program in stack.programs])

    async def run() -> int:
        supervisor = Supervisor(stack.programs, stack.environment, output, grace=_GRACE_SECONDS)
        return await supervisor.run(lambda: welcome.tell(stack, supervisor))

    raise typer.Exit(asyncio.run(run()))
