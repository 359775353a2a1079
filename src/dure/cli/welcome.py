"""Where to look, told once what `dure up` started is ready."""

from __future__ import annotations

import asyncio
import time

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dure.cli.readiness import Readiness
from dure.cli.stack import Stack
from dure.cli.supervisor import Supervisor
from dure.cli.terminal import out
from dure.url import redact

_LOOK_SECONDS = 0.05


async def tell(stack: Stack, supervisor: Supervisor) -> None:
    readiness = Readiness(stack.url, stack.settings)
    began = time.monotonic()
    while True:
        pids = supervisor.worker_pids
        is_ready = await asyncio.to_thread(readiness.look, pids)
        if pids and is_ready:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    _print(stack, time.monotonic() - began)


def _print(stack: Stack, seconds: float) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold")
    grid.add_row("gateway", stack.url)
    grid.add_row("try it", f"{stack.url}/docs")
    grid.add_row("broker", redact(stack.settings.broker))
    grid.add_row("ledger", redact(stack.settings.ledger))
    title = Text.assemble("Dure is ready", (f"  {seconds:.1f} s", "dim"))
    out().print(Panel(grid, title=title, title_align="left", border_style="green", expand=False))
