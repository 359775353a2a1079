"""What a task tells while it runs, line by line on stderr: its output and its log lines; with --json all events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import typer
from rich.text import Text

from dure.cli import times
from dure.cli.terminal import err
from dure.feed import FeedEvent, FeedKind

if TYPE_CHECKING:
    from rich.console import Console

_LEVELS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}


class Lines:
    """Text is put together to lines, whatever pieces it comes in; other JSON has a line of its own."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or err()
        self._begun: dict[str, str] = {}  # lines that have no end yet, by job

    @property
    def begun(self) -> str:
        return next(iter(self._begun.values()), "")

    def show(self, event: FeedEvent) -> None:
        node = event.data.get("node") or ""
        match event.kind:
            case FeedKind.OUTPUT:
                self._output(event.job or "", node, event.data["chunk"])
            case FeedKind.LOG:
                self._line(event, node, _log_line(event.data))
            case FeedKind.DROPPED:
                self._line(event, node, Text(f"… {event.data['entries']:,} older entries are not kept", style="dim"))
            case FeedKind.STATE if event.data["state"] == "RETRY":
                self._line(event, node, Text(f"attempt {event.data['attempt']} failed, and is tried again", "yellow"))
            case FeedKind.RESULT:
                for job in list(self._begun):
                    self._end(job, node)

    def _output(self, job: str, node: str, chunk: Any) -> None:
        if not isinstance(chunk, str):
            self._end(job, node)
            self._print(node, Text(msgspec.json.encode(chunk).decode()))
            return
        *lines, rest = (self._begun.pop(job, "") + chunk).split("\n")
        for line in lines:
            self._print(node, Text(line.removesuffix("\r")))
        if rest:
            self._begun[job] = rest

    def _line(self, event: FeedEvent, node: str, text: Text) -> None:
        self._end(event.job or "", node)
        self._print(node, text)

    def _end(self, job: str, node: str) -> None:
        if rest := self._begun.pop(job, ""):
            self._print(node, Text(rest))

    def _print(self, node: str, text: Text) -> None:
        self._console.print(Text.assemble((f"{node} │ ", "cyan"), text) if node else text, soft_wrap=True)


def _log_line(data: dict[str, Any]) -> Text:
    level = str(data.get("level", ""))
    return Text.assemble(
        (times.clock(data["at"])[11:23], "dim"),
        " ",
        (f"{level:<7}", _LEVELS.get(level, "blue")),
        (f" {data.get('logger', '')}: ", "dim"),
        str(data.get("message", "")),
    )


def print_event(event: FeedEvent) -> None:
    """One line of JSON on stdout."""
    typer.echo(msgspec.json.encode({"id": event.id, "event": event.kind.value, "data": event.data}))
