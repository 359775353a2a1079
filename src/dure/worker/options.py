"""What a command line says to Celery's worker."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click
from celery.bin.worker import worker as worker_command

from dure.errors import ConfigurationError, Problem

# Harmful where several workers do it, or where one does it again each time that it is replaced.
_ONCE = {
    "beat": ("--beat", "each process would send the periodic jobs", "run `celery beat` beside the workers"),
    "detach": ("--detach", "a process that leaves cannot be watched over", "leave it out"),
    "purge": ("--purge", "each process would purge again when it is replaced", "run `celery purge` before"),
}
_FILES = {"pidfile": "--pidfile", "statedb": "--statedb"}


def given(argv: Sequence[str]) -> dict[str, object]:
    """What `argv` sets; Celery will complain of what it does not know."""
    context = click.Context(worker_command, ignore_unknown_options=True, allow_extra_args=True)
    try:
        values, _, _ = worker_command.make_parser(context).parse_args(list(argv))
    except click.ClickException:
        return {}
    return {{"pool": "pool_cls"}.get(name, name): value for name, value in values.items()}


def numbered(argv: Sequence[str], number: int) -> list[str]:
    """The command line of one of several workers, with a host name of its own.

    Raises ConfigurationError for options that only a single worker can have.
    """
    values = given(argv)
    problems = [Problem(*_ONCE[name]) for name in _ONCE.keys() & values.keys()]
    for name, option in _FILES.items():
        path = values.get(name)
        if path and not re.search("%[hp]", str(path)):
            problems.append(Problem(option, "the processes would share the file", f"write %p into its name: {path}.%p"))
    if problems:
        raise ConfigurationError(problems)
    hostname = str(values.get("hostname") or "celery@%h%I")
    if not re.search("%[iI]", hostname):
        hostname += "%I"
    # Celery knows both, of the processes of prefork.
    return [*argv, "-n", hostname.replace("%I", f"-{number}").replace("%i", str(number))]
