"""`dure worker`: Celery's own worker, adopted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dure.cli import options
from dure.cli.options import App, BrokerUrl, Home, LedgerUrl, Processes

if TYPE_CHECKING:
    from celery import Celery

    from dure.settings import Settings


def worker(
    ctx: typer.Context,
    app: App = None,
    processes: Processes = 1,
    process: Annotated[int | None, typer.Option(hidden=True)] = None,
    celery_help: Annotated[bool, typer.Option("--celery-help", help="List the options of celery worker.")] = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Run a worker for a Celery application, with every option of [b]celery worker[/b].

    What is not listed here goes to Celery as it is: [b]dure worker -A shop -Q mail,reports -c 8 -l info[/b].
    Without a pool of yours it runs [b]async def[/b] tasks as coroutines on one loop, and all others in threads.

    The broker is the one that Dure's settings name; else the application's own; else the embedded one.
    The result backend likewise.
    """
    if celery_help:
        _celery_help()
        return
    settings = options.settings(broker_url, ledger_url, home)
    target = options.required(app)

    from dure.cli import logs

    logs.configure(settings.log_level, settings.log_format)
    if processes > 1:
        where = {"DURE_BROKER_URL": broker_url, "DURE_LEDGER_URL": ledger_url, "DURE_HOME": str(home) if home else None}
        raise typer.Exit(_supervise(target, ctx.args, processes, {k: v for k, v in where.items() if v is not None}))
    _patch_for_pool(ctx.args)

    from dure.worker import load, run
    from dure.worker.options import numbered

    argv = ctx.args
    if process is not None:
        argv, settings = numbered(argv, process), _of_one(settings, process)
    celery = load.load(target)
    _adopt(celery, settings)
    raise typer.Exit(run.run(celery, settings, argv))


def _supervise(app: str, argv: list[str], processes: int, where: dict[str, str]) -> int:
    """Celery is not loaded here: what is wrong with the application or the options, the first process says."""
    import asyncio
    import sys

    from dure.cli import program
    from dure.cli.output import Output, Streams, Terminal
    from dure.cli.supervisor import Supervisor

    workers = program.workers(app, tuple(argv), processes)
    output: Output = Terminal([worker.name for worker in workers]) if sys.stdout.isatty() else Streams()

    async def run() -> int:
        return await Supervisor(workers, program.environment() | where, output, grace=None).run()

    return asyncio.run(run())


def _of_one(settings: Settings, process: int) -> Settings:
    """Those of one of several workers."""
    from dure import probe
    from dure.errors import ConfigurationError, Problem

    if settings.worker_health is None:
        return settings
    try:
        place = probe.numbered(settings.worker_health, process)
    except ValueError as exc:
        told = "cannot be the place of several workers' health"
        raise ConfigurationError([Problem("DURE_WORKER_HEALTH", told, str(exc))]) from exc
    return settings.model_copy(update={"worker_health": place})


def _patch_for_pool(argv: list[str]) -> None:
    """As Celery's own command does: greenlets need Python's blocking calls replaced before anybody has hold of them."""
    from celery import maybe_patch_concurrency

    maybe_patch_concurrency(["dure", *argv])


def _adopt(celery: Celery, settings: Settings) -> None:
    from dure.worker.adopt import adopt

    broker = settings.broker_url
    own_broker = _own(celery, "broker_url")
    if broker is None and own_broker is None:
        broker = settings.broker
    results = settings.result_backend
    if results is None and _own(celery, "result_backend") is None and broker is not None:
        results = settings.results
    _tell_set_aside("broker", own_broker, broker)
    _tell_set_aside("result backend", _own(celery, "result_backend"), results)
    adopt(celery, settings, broker_url=broker, result_backend=results)


def _own(celery: Celery, name: str) -> str | None:
    """What the application itself says; Celery's own default counts as nothing."""
    value: Any = celery.conf.get(name) if celery.conf.value_set_for(name) else None
    return str(value) if value else None


def _tell_set_aside(what: str, own: str | None, chosen: str | None) -> None:
    from dure.cli.terminal import err
    from dure.url import redact

    if own and chosen and own != chosen:
        err().print(f"the application's own {what} {redact(own)} is set aside for {redact(chosen)}", markup=False)


def _celery_help() -> None:
    from celery.bin.celery import celery

    celery.main(args=["worker", "--help"], prog_name="dure", standalone_mode=False)
