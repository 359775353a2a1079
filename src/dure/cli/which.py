"""Options that say which jobs are meant."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import times
from dure.job import Reason, State

_PANEL = "Which"

ByState = Annotated[
    State | None, typer.Option("--state", case_sensitive=False, help="In any case.", rich_help_panel=_PANEL)
]
ByReason = Annotated[
    Reason | None,
    typer.Option(
        "--reason",
        case_sensitive=False,
        metavar="REASON",
        help="Why they ended, such as expired or worker-lost.",
        rich_help_panel=_PANEL,
    ),
]
ByFingerprint = Annotated[
    str | None, typer.Option("--fingerprint", help="Jobs that failed alike have the same.", rich_help_panel=_PANEL)
]
ByTask = Annotated[str | None, typer.Option("--task", help="The task's whole name.", rich_help_panel=_PANEL)]
ByQueue = Annotated[str | None, typer.Option("--queue", help="Of this queue.", rich_help_panel=_PANEL)]
ByWorker = Annotated[str | None, typer.Option("--worker", help="Such as celery@host.", rich_help_panel=_PANEL)]
ByTag = Annotated[str | None, typer.Option("--tag", help="With this tag.", rich_help_panel=_PANEL)]
ByWorkflow = Annotated[
    str | None, typer.Option("--workflow", help="The nodes of this workflow.", rich_help_panel=_PANEL)
]
Since = Annotated[
    float | None,
    typer.Option(
        "--since", parser=times.past, metavar="TIME|MOMENT", help="10m ago, or ISO 8601.", rich_help_panel=_PANEL
    ),
]
Until = Annotated[
    float | None,
    typer.Option("--until", parser=times.past, metavar="TIME|MOMENT", help="And before this.", rich_help_panel=_PANEL),
]
ByText = Annotated[str | None, typer.Option("--text", help="In the arguments.", rich_help_panel=_PANEL)]
Dead = Annotated[bool, typer.Option("--dead", help="Only dead letters.", rich_help_panel=_PANEL)]
