"""What a supervisor prints: its own words, and on a terminal its children's lines behind their names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from rich.text import Text

from dure.cli.terminal import out

_OWN = "dure"
_COLOURS = ("cyan", "magenta", "yellow", "blue", "green")


class Output(Protocol):
    def prefixed(self, name: str) -> Callable[[str], None] | None:
        """What takes a child's lines; None where it writes them by itself."""

    def tell(self, text: str) -> None: ...


class Streams:
    """For files, pipes and journals: children write to our own streams, and our words are log lines among theirs."""

    def prefixed(self, name: str) -> None:
        return None

    def tell(self, text: str) -> None:
        structlog.get_logger("dure.supervisor").info(text)


class Terminal:
    """For people: one stream, each line behind the name of its child."""

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

    def _prefix(self, name: str, style: str) -> str:
        console = out()
        with console.capture() as capture:
            console.print(Text.assemble((f"{name} │ ", style)), end="")
        return capture.get()
