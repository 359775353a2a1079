"""What `dure up` prints: its children's lines behind their names, its own words, and where to look once it is ready."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dure.cli.stack import Stack
from dure.cli.terminal import out
from dure.url import redact

_OWN = "dure"
_COLOURS = ("cyan", "magenta", "yellow", "blue", "green")


class Output:
    def __init__(self, names: Sequence[str]) -> None:
        width = max(map(len, [_OWN, *names]))
        styles = {_OWN: "bold", **{name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}}
        self._prefixes = {name: self._prefix(name.ljust(width), style) for name, style in styles.items()}

    def prefixed(self, name: str) -> Callable[[str], None]:
        prefix = self._prefixes[name]

        def say(line: str) -> None:
            # Not through rich: it would wrap and recolour what is not ours.
            sys.stdout.write(f"{prefix}{line}\n")
            sys.stdout.flush()

        return say

    def tell(self, text: str) -> None:
        self.prefixed(_OWN)(text)

    def welcome(self, stack: Stack, seconds: float) -> None:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="bold")
        grid.add_row("gateway", stack.url)
        grid.add_row("try it", f"{stack.url}/docs")
        grid.add_row("broker", redact(stack.settings.broker))
        grid.add_row("ledger", redact(stack.settings.ledger))
        title = Text.assemble("Dure is ready", (f"  {seconds:.1f} s", "dim"))
        out().print(Panel(grid, title=title, title_align="left", border_style="green", expand=False))

    def _prefix(self, name: str, style: str) -> str:
        console = out()
        with console.capture() as capture:
            console.print(Text.assemble((f"{name} │ ", style)), end="")
        return capture.get()
