"""What `dure up` runs: each process with its command line, and the environment that all of them share."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dure.cli.listener import listen, url
from dure.errors import ConfigurationError, Problem
from dure.settings import Settings

GATEWAY, WORKER = "gateway", "worker"

_PREFIX_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Program:
    """A process to keep running; `ours` tells whether exit code 2 means that its configuration is wrong."""

    name: str
    argv: tuple[str, ...]
    ours: bool
    inherits: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stack:
    """`listener` stays open here, so that a gateway that restarts refuses nobody: who calls meanwhile waits."""

    programs: tuple[Program, ...]
    environment: Mapping[str, str]
    listener: socket.socket
    settings: Settings

    @property
    def url(self) -> str:
        return url(self.listener)


def plan(settings: Settings, app: str, *, worker_options: Sequence[str], commands: Sequence[str]) -> Stack:
    """Raises ConfigurationError for a command that is not there, or an address in use."""
    environment = _environment(settings)
    beside = [_command(text, environment["PATH"]) for text in commands]
    listener = listen(settings.host, settings.port)
    listener.set_inheritable(True)
    dure = (sys.executable, "-m", "dure")
    descriptor = listener.fileno()
    gateway = Program(GATEWAY, (*dure, "serve", "--fd", str(descriptor)), ours=True, inherits=(descriptor,))
    worker = Program(WORKER, (*dure, "worker", "-A", app, *worker_options), ours=True)
    return Stack((gateway, worker, *_numbered(beside)), environment, listener, settings)


def _environment(settings: Settings) -> dict[str, str]:
    here = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "DURE_HOME": str(settings.home.absolute()),
        "DURE_BROKER_URL": settings.broker,
        "DURE_LEDGER_URL": settings.ledger,
        "DURE_HOST": settings.host,
        "DURE_INSECURE": str(settings.insecure).lower(),
    }
    if settings.results is not None:
        environment["DURE_RESULT_BACKEND"] = settings.results
    if sys.stdout.isatty():
        environment.setdefault("FORCE_COLOR", "1")
        environment["COLUMNS"] = str(max(40, shutil.get_terminal_size().columns - _PREFIX_COLUMNS))
    return environment


def _command(text: str, path: str) -> Program:
    try:
        argv = shlex.split(text)
    except ValueError as exc:
        raise _wrong(text, str(exc)) from None
    found = shutil.which(argv[0], path=path) if argv else None
    if found is None:
        raise _wrong(text, "there is no such program")
    return Program(Path(argv[0]).name, (found, *argv[1:]), ours=False)


def _wrong(text: str, why: str) -> ConfigurationError:
    return ConfigurationError([Problem("--with", f"{text!r}: {why}", "write one quoted command; there is no shell")])


def _numbered(programs: Sequence[Program]) -> list[Program]:
    """Two of one name are told apart: `uvicorn`, `uvicorn-2`."""
    seen: dict[str, int] = {GATEWAY: 1, WORKER: 1}
    named = []
    for program in programs:
        count = seen[program.name] = seen.get(program.name, 0) + 1
        name = program.name if count == 1 else f"{program.name}-{count}"
        named.append(Program(name, program.argv, program.ours))
    return named
