"""What came out, for the eye, for programs, and for the documentation."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import dure
from chaos.cell import Outcome
from tests.services.service import find

NOT_RUN = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    system: str
    fault: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A cell that came to no count: the harness or the system did not even start."""

    system: str
    fault: str
    why: str


Cell = Outcome | Skipped | Failed


def fault_of(cell: Cell) -> str:
    return " + ".join(cell.faults) if isinstance(cell, Outcome) else cell.fault


def tell(console: Console, cell: Cell) -> None:
    """One cell as it ends: a line of figures, and below it what they hide."""
    head = f"{cell.system:<17} {fault_of(cell):<17}"
    if not isinstance(cell, Outcome):
        console.print(f"{head} {'n/a' if isinstance(cell, Skipped) else '[red]failed[/]'}: {cell.why}")
        return
    tally = cell.tally
    colour = "red" if tally.lost else "yellow" if tally.wrong else "green"
    console.print(
        f"{head} accepted {tally.accepted}/{cell.jobs}  ran {tally.ran}  again {tally.more_than_once}  "
        f"[{colour}]lost {tally.lost}  wrong {tally.wrong}[/]  blows {cell.blows}  "
        f"load {cell.load_seconds:.0f} s  quiet {'after' if cell.settled else 'never,'} {cell.quiet_seconds:.1f} s"
    )
    if tally.lost:
        console.print(f"    lost: {tally.never_begun} never begun, {tally.cut_short} cut short")
    if tally.two_ids:
        console.print(f"    one key, two ids: {tally.two_ids}")
    for title, figures in (
        ("refused or failed requests", cell.errors),
        ("begun again", tally.repeats),
        ("wrong", tally.wrongs),
        ("ended by themselves", cell.crashes),
    ):
        if figures:
            console.print(f"    {title}: {_figures(figures)}")
    for why, examples in tally.examples.items():
        for example in examples:
            console.print(f"      {why}: {example}", markup=False, soft_wrap=True)


def table(cells: Iterable[Cell]) -> Table:
    found = Table(title="lost, and wrong in history", title_justify="left")
    found.add_column("fault")
    cells = list(cells)
    systems = list(dict.fromkeys(cell.system for cell in cells))
    for system in systems:
        found.add_column(system, justify="right")
    for fault in dict.fromkeys(fault_of(cell) for cell in cells):
        by_system = {cell.system: cell for cell in cells if fault_of(cell) == fault}
        found.add_row(fault, *(_short(by_system.get(system)) for system in systems))
    return found


def as_json(cells: Iterable[Cell], heading: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {Outcome: "counted", Skipped: "not applicable", Failed: "failed"}
    return {"run": dict(heading), "cells": [{"kind": kinds[type(cell)], **asdict(cell)} for cell in cells]}


def as_markdown(
    cells: Sequence[Cell], heading: Mapping[str, Any], faults: Mapping[str, str], summaries: Mapping[str, str]
) -> str:
    """A table by fault, the systems side by side; `faults` and `summaries` say what each is."""
    systems = list(dict.fromkeys(cell.system for cell in cells))
    lines = [
        f"`{heading['command']}`: {heading['date']}, {heading['cores']} cores, {heading['memory_gb']} GB, "
        + ", ".join(f"{name} {number}" for name, number in heading["versions"].items())
        + ".",
        "",
        "Jobs: accepted / run / more than once / **lost** / **wrong in history**",
        "",
        f"| fault | {' | '.join(f'`{system}`' for system in systems)} |",
        f"| --- |{' --- |' * len(systems)}",
    ]
    for name in dict.fromkeys(fault_of(cell) for cell in cells):
        by_system = {cell.system: cell for cell in cells if fault_of(cell) == name}
        row = " | ".join(_markdown(by_system.get(system)) for system in systems)
        lines.append(f"| `{name}` | {row} |")
    told = [f"- `{name}`: {does}." for name, does in faults.items() if any(fault_of(cell) == name for cell in cells)]
    what = [f"- `{name}`: {summary}." for name, summary in summaries.items() if name in systems]
    return "\n".join([*lines, "", *told, "", *what, ""])


def heading(arguments: Sequence[str], servers: Iterable[str]) -> dict[str, Any]:
    """The command, what it ran with, and on what."""
    return {
        "command": shlex.join(["python", "-m", "chaos", *arguments]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.platform(),
        "versions": {
            "Dure": dure.__version__,
            "Celery": version("celery"),
            "Python": platform.python_version(),
            **{name: number for name in servers if (number := _server_version(name))},
        },
    }


def _server_version(name: str) -> str | None:
    if name == "RabbitMQ":
        folders = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*"))
        return folders[-1].name.partition("-")[2] if folders else None
    patterns = {"PostgreSQL": ("/usr/lib/postgresql/*/bin/postgres", "postgres"), "Redis": ("redis-server",)}
    program = find(*patterns[name])
    if program is None:
        return None
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+\.\d+(\.\d+)?", told)
    return found[0] if found else None


def _short(cell: Cell | None) -> str:
    if not isinstance(cell, Outcome):
        return {Skipped: "n/a", Failed: "[red]failed[/]"}.get(type(cell), NOT_RUN)
    colour = "red" if cell.tally.lost else "yellow" if cell.tally.wrong else "green"
    return f"[{colour}]{cell.tally.lost} · {cell.tally.wrong}[/]"


def _markdown(cell: Cell | None) -> str:
    if not isinstance(cell, Outcome):
        return {Skipped: "n/a", Failed: "failed"}.get(type(cell), NOT_RUN)
    tally = cell.tally
    return f"{tally.accepted:,} / {tally.ran:,} / {tally.more_than_once:,} / **{tally.lost:,}** / **{tally.wrong:,}**"


def _figures(figures: Mapping[str, int]) -> str:
    return ", ".join(f"{count} × {name}" for name, count in sorted(figures.items(), key=lambda each: -each[1]))
