"""`dure check`: every configuration problem at once, each with its remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from dure.cli import options
from dure.cli.codes import Code
from dure.cli.options import App, AsJson, BrokerUrl, Home, LedgerUrl
from dure.errors import ConfigurationError

if TYPE_CHECKING:
    from dure.cli.checks.finding import Finding
    from dure.settings import Settings


def check(
    app: App = None,
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Look for what is wrong in settings, ledger, broker and application, and say how to mend it.

    Exit code 1 if there is a problem; warnings alone are 0. A ledger that is behind is brought up to date.
    """
    from dure.cli import logs
    from dure.cli.checks.finding import Level

    logs.quiet()
    found = list(_check(app, {"broker_url": broker_url, "ledger_url": ledger_url, "home": home}))
    problems = sum(finding.level is Level.PROBLEM for finding in found)
    if as_json:
        from dure.cli.terminal import print_answer

        print_answer({"ok": not problems, "findings": found})
    else:
        _print(found)
    raise typer.Exit(Code.FAILED if problems else Code.DONE)


def _check(app: str | None, arguments: dict[str, Any]) -> Iterator[Finding]:
    from dure.cli.checks.application import check_application
    from dure.cli.checks.finding import ok, problem_of
    from dure.cli.checks.names import check_names
    from dure.cli.checks.services import check_services

    settings: Settings | None = None
    try:
        settings = options.settings(**arguments)
        settings.require_closed()
    except ConfigurationError as exc:
        yield from map(problem_of, exc.problems)
    else:
        yield ok("settings", f"the gateway would listen on {settings.host}:{settings.port}")
    yield from check_names()
    if settings is not None:
        yield from asyncio.run(check_services(settings))
    if app:
        yield from check_application(app, settings)


def _print(found: list[Finding]) -> None:
    from rich.text import Text

    from dure.cli.checks.finding import Level
    from dure.cli.show import table
    from dure.cli.terminal import out

    marks = {Level.OK: ("✓", "green"), Level.WARNING: ("!", "yellow"), Level.PROBLEM: ("✗", "red")}
    listed = table("", "PLACE", "FINDING")
    listed.columns[2].overflow = "fold"
    for finding in found:
        text = Text(finding.message)
        if finding.remedy:
            text.append(f"\n→ {finding.remedy}", style="bold")
        mark, style = marks[finding.level]
        listed.add_row(Text(mark, style=f"bold {style}"), finding.place, text)
    out().print(listed)
    problems, warnings = (sum(f.level is level for f in found) for level in (Level.PROBLEM, Level.WARNING))
    out().print(f"\n{_count(problems, 'problem')}, {_count(warnings, 'warning')}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number or 'no'} {noun}s"
