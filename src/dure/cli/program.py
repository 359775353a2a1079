"""A process to keep running: what its command line is, and how it is stopped."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass

DURE = (sys.executable, "-m", "dure")

_PREFIX_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Program:
    """`ours` tells whether exit code 2 means that its configuration is wrong, `last` that it is stopped behind others,
    `is_worker` that SIGQUIT has it give back what it runs."""

    name: str
    argv: tuple[str, ...]
    ours: bool
    inherits: tuple[int, ...] = ()
    last: bool = False
    is_worker: bool = False


def workers(app: str, argv: tuple[str, ...], count: int) -> list[Program]:
    """`worker`, or `worker-1`, `worker-2` and so on, each of which knows its number."""
    command = (*DURE, "worker", "-A", app, *argv)
    if count == 1:
        return [Program("worker", command, ours=True, is_worker=True)]
    return [
        Program(f"worker-{number}", (*command, "--process", str(number)), ours=True, is_worker=True)
        for number in range(1, count + 1)
    ]


def environment() -> dict[str, str]:
    """For a child whose lines are printed behind its name."""
    shared = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if sys.stdout.isatty():
        shared.setdefault("FORCE_COLOR", "1")
        shared["COLUMNS"] = str(max(40, shutil.get_terminal_size().columns - _PREFIX_COLUMNS))
    return shared
