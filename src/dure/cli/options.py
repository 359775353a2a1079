"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dure.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from dure.settings import Settings

_PANEL = "Where (else DURE_*, .env, \\[tool.dure], the embedded default)"

BrokerUrl = Annotated[
    str | None, typer.Option("--broker-url", metavar="URL", help="amqp://… for RabbitMQ.", rich_help_panel=_PANEL)
]
LedgerUrl = Annotated[
    str | None,
    typer.Option("--ledger-url", metavar="URL", help="postgresql://… or sqlite:///…", rich_help_panel=_PANEL),
]
Home = Annotated[
    Path | None,
    typer.Option("--home", metavar="FOLDER", help="Folder of the embedded broker and ledger.", rich_help_panel=_PANEL),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
App = Annotated[
    str | None,
    typer.Option(
        "--app", "-A", metavar="MODULE[:APP]", envvar="CELERY_APP", help="The Celery application, as for celery -A."
    ),
]
Processes = Annotated[int, typer.Option("--processes", min=1, help="Run so many workers, each replaced when it dies.")]


def settings(broker_url: str | None, ledger_url: str | None, home: Path | None, **more: object) -> Settings:
    """Raises ConfigurationError with every problem found."""
    from dure.settings import load

    return load(broker_url=broker_url, ledger_url=ledger_url, home=home, **more)


def required(app: str | None) -> str:
    if app:
        return app
    raise ConfigurationError(
        [Problem("--app", "which Celery application?", "pass -A module or -A module:app, or set CELERY_APP")]
    )
