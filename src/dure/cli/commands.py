"""The commands under `dure`, and what an expected error of any of them does."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import dure
from dure.cli.cancel import cancel
from dure.cli.check import check
from dure.cli.codes import EPILOG, Code, code_of
from dure.cli.dead import dead
from dure.cli.jobs import job, jobs
from dure.cli.queues import queues
from dure.cli.retry import retry
from dure.cli.run import run
from dure.cli.serve import serve
from dure.cli.submit import submit
from dure.cli.tasks import tasks
from dure.cli.up import up
from dure.cli.watch import watch
from dure.cli.worker import worker
from dure.cli.workers import workers
from dure.cli.workflow import signal, workflow
from dure.cli.workflows import workflows
from dure.errors import DureError

# `up` and `worker` hand on what they do not know; `submit` and `signal` must not take a negative number for an option.
_CONTEXTS: dict[Any, dict[str, Any]] = {
    up: {"ignore_unknown_options": True, "allow_extra_args": True},
    worker: {"ignore_unknown_options": True, "allow_extra_args": True},
    submit: {"ignore_unknown_options": True},
    signal: {"ignore_unknown_options": True},
}


class Commands(TyperGroup):
    """An expected error becomes a panel on stderr and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DureError as exc:
            from dure.cli.report import report

            report(exc)
            raise typer.Exit(code_of(exc)) from None
        except OSError as exc:
            if exc.filename is None:
                raise
            from dure.cli.report import report_file

            report_file(exc)
            raise typer.Exit(Code.UNAVAILABLE) from None


app = typer.Typer(
    name="dure",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=EPILOG,
    pretty_exceptions_show_locals=False,  # they may hold secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dure {dure.__version__}")
        raise typer.Exit


@app.callback()
def _dure(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Background jobs on Celery and RabbitMQ: submit them, run them, watch them."""


for _panel, _commands in {
    "Run": (up, serve, worker),
    "Jobs": (submit, watch, jobs, job, cancel, retry),
    "Workflows": (run, workflows, workflow, signal),
    "Look": (tasks, queues, workers, check),
}.items():
    for _command in _commands:
        app.command(
            rich_help_panel=_panel,
            epilog=EPILOG,
            context_settings=_CONTEXTS.get(_command),
        )(_command)
app.add_typer(dead, name="dead", rich_help_panel="Jobs")
