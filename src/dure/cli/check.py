"""`dure check`: every configuration problem at once, each with its remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dure.cli import options
from dure.cli.codes import Code
from dure.cli.options import App, AsJson, BrokerUrl, Home, LedgerUrl
from dure.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from dure.cli.checks.finding import Finding
    from dure.settings import Settings


def check(
    app: App = None,
    worker: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|PORT",
            help="Ask only whether the worker that tells its health there takes jobs, as a health check does.",
        ),
    ] = None,
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
    found = (
        [_ask(worker)]
        if worker is not None
        else list(_check(app, {"broker_url": broker_url, "ledger_url": ledger_url, "home": home}))
    )
    problems = sum(finding.level is Level.PROBLEM for finding in found)
    if as_json:
        from dure.cli.terminal import print_answer

        print_answer({"ok": not problems, "findings": found})
    else:
        _print(found)
    raise typer.Exit(Code.FAILED if problems else Code.DONE)


def _ask(place: str) -> Finding:
    from dure import probe
    from dure.cli.checks.finding import ok, problem

    name = f"worker {place}"
    try:
        answer = probe.ask(probe.parse(place))
    except ValueError as exc:
        raise ConfigurationError(
            [Problem("--worker", str(exc), "name it as DURE_WORKER_HEALTH of the worker")]
        ) from exc
    if not answer.is_ready:
        return problem(name, answer.why_not, "look into its log; DURE_WORKER_HEALTH says where it tells its health")
    running, slots = answer.health.get("running"), answer.health.get("slots")
    return ok(name, f"{answer.health.get('state')}, {running} of {slots} slots taken")


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
