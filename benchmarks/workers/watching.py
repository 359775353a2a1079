"""A group of processes from the outside: its processor time, its memory, and the marks that its tasks left."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def processes(group: int) -> list[Path]:
    """The folders in /proc of a session's processes; some frameworks put theirs in groups of their own."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                if int(_stat(folder)[3]) == group:
                    found.append(folder)
    return found


def cpu_seconds(group: int) -> float:
    """User and system time of all of them, and of their children that are gone."""
    total = 0
    for folder in processes(group):
        with suppress(OSError):
            total += sum(map(int, _stat(folder)[11:15]))
    return total / _TICK


def memory(group: int) -> float:
    """In megabytes; what several of them share counts once."""
    total = 0
    for folder in processes(group):
        with suppress(OSError):
            told = re.search(r"(?m)^Pss:\s+(\d+) kB", (folder / "smaps_rollup").read_text())
            total += int(told[1]) if told else 0
    return total * 1024 / 1_000_000


def marks(path: Path) -> list[tuple[str, float]]:
    """Name and time of each mark so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(name, float(time)) for name, time in (line.split() for line in lines)]


def _stat(folder: Path) -> list[str]:
    """From the state on: the session is the fourth."""
    return (folder / "stat").read_text().rpartition(")")[2].split()
