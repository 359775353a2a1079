"""Where the command line writes: answers to stdout, everything else to stderr."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import typer
from rich.console import Console

# A pipe has no width; tables there are as wide as their cells, so that no id is cut.
_PIPE_COLUMNS = 1000


@cache
def out() -> Console:
    return _console(stderr=False)


@cache
def err() -> Console:
    return _console(stderr=True)


def print_answer(value: Any) -> None:
    """`--json`: what the gateway answers to the same question."""
    import msgspec

    print_json(msgspec.json.encode(value))


def print_json(text: bytes) -> None:
    """JSON for people on a terminal, for programs in a pipe: there it is one line."""
    if out().is_terminal:
        out().print_json(text.decode(), indent=2)
    else:
        typer.echo(text)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_COLUMNS
    return console
