"""Draw a workflow on the terminal again and again, until it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.live import Live

from dure.cli.overview import overview
from dure.errors import LedgerUnavailable

if TYPE_CHECKING:
    from rich.console import Console

    from dure.ledger.flows import WorkflowView

_LOOK_SECONDS = 0.5
# Of a workflow of thousands of nodes, looking and drawing takes a fifth of the time at most.
_REST = 4


async def redraw(
    look: Callable[[], Awaitable[WorkflowView]], console: Console, until: asyncio.Future[Any] | None = None
) -> None:
    """Returns when it has ended, or when `until` is done; then what is seen last stays."""
    clock = asyncio.get_running_loop().time
    done = until or asyncio.get_running_loop().create_future()
    began, view = clock(), await look()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            is_last = done.done()
            live.update(overview(view, console, room=console.height - 1), refresh=True)
            if is_last or view.workflow.state.final:
                return
            await asyncio.wait([done], timeout=max(_LOOK_SECONDS, _REST * (clock() - began)))
            began = clock()
            with suppress(LedgerUnavailable):
                view = await look()
