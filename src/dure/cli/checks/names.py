"""Names that Dure does not know, where only its own belong: they are mostly misspelt, and would do nothing."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dure.cli.checks.finding import Finding, problem, warning
from dure.settings import Settings

_PREFIX = "DURE_"


def check_names() -> Iterator[Finding]:
    variables = [_PREFIX + name.upper() for name in Settings.model_fields]
    yield from _unknown("environment", (name for name in os.environ if name.startswith(_PREFIX)), variables)
    yield from _unknown(".env", (name for name in _dotenv() if name.startswith(_PREFIX)), variables)
    yield from _check_pyproject()


def _check_pyproject() -> Iterator[Finding]:
    path = Path("pyproject.toml")
    if not path.is_file():
        return
    try:
        table = tomllib.loads(path.read_text()).get("tool", {}).get("dure", {})
    except (OSError, ValueError) as exc:
        yield problem("pyproject.toml", f"cannot be read: {exc}", "mend it")
        return
    yield from _unknown("[tool.dure]", table, list(Settings.model_fields))


def _dotenv() -> Iterable[Any]:
    from dotenv import dotenv_values

    return dotenv_values(".env").keys() if Path(".env").is_file() else ()


def _unknown(place: str, names: Iterable[str], known: Sequence[str]) -> Iterator[Finding]:
    for name in sorted(set(names) - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"remove it; Dure knows {', '.join(known)}"
        yield warning(f"{place} {name}", "Dure has no such setting, so it does nothing", remedy)
