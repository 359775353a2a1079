"""What `dure up` runs: each process with its command line, and the environment that all of them share."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dure.cli import program
from dure.cli.listener import listen, url
from dure.cli.program import DURE, Program
from dure.errors import ConfigurationError, Problem
from dure.settings import Settings

_GATEWAY, _WORKER = "gateway", "worker"


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


def plan(
    settings: Settings, app: str, *, worker_options: Sequence[str], commands: Sequence[str], processes: int = 1
) -> Stack:
    """Raises ConfigurationError for a command that is not there, or an address in use."""
    environment = _environment(settings)
    beside = [_command(text, environment["PATH"]) for text in commands]
    listener = listen(settings.host, settings.port)
    listener.set_inheritable(True)
    descriptor = listener.fileno()
    # The gateway ends last: it records how the workers' last jobs ended.
    gateway = Program(_GATEWAY, (*DURE, "serve", "--fd", str(descriptor)), ours=True, inherits=(descriptor,), last=True)
    workers = program.workers(app, tuple(worker_options), processes)
    return Stack((gateway, *workers, *_numbered(beside)), environment, listener, settings)


def _environment(settings: Settings) -> dict[str, str]:
    here = str(Path(sys.executable).parent)
    environment = {
        **program.environment(),
        "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "DURE_HOME": str(settings.home.absolute()),
        "DURE_BROKER_URL": settings.broker,
        "DURE_LEDGER_URL": settings.ledger,
        "DURE_HOST": settings.host,
        "DURE_INSECURE": str(settings.insecure).lower(),
    }
    if settings.results is not None:
        environment["DURE_RESULT_BACKEND"] = settings.results
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
    seen: dict[str, int] = {_GATEWAY: 1, _WORKER: 1}
    named = []
    for each in programs:
        count = seen[each.name] = seen.get(each.name, 0) + 1
        named.append(each if count == 1 else replace(each, name=f"{each.name}-{count}"))
    return named
