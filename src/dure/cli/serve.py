"""`dure serve`: the gateway in front, on uvicorn."""

from __future__ import annotations

import gc
import signal
import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dure.cli import options
from dure.cli.codes import Code
from dure.cli.options import BrokerUrl, Home, LedgerUrl

if TYPE_CHECKING:
    from dure.settings import Settings

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on; default 127.0.0.1.")]
Port = Annotated[int | None, typer.Option("--port", min=0, max=65535, help="0 takes a free one; default 8000.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Listen on other than loopback without an API key (DURE_API_KEYS).")
]


def serve(
    host: Host = None,
    port: Port = None,
    insecure: Insecure = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
    fd: Annotated[int | None, typer.Option(hidden=True, help="A listening socket that was handed down.")] = None,
) -> None:
    """Run the gateway: HTTP API, recorder and relay. Several may run side by side."""
    from dure.cli import logs
    from dure.cli.listener import listen

    settings = options.settings(broker_url, ledger_url, home, host=host, port=port, insecure=insecure or None)
    settings.require_closed()
    listener = socket.socket(fileno=fd) if fd is not None else listen(settings.host, settings.port)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    logs.configure(settings.log_level, settings.log_format)
    _run(settings, listener)


def _leave(number: int, frame: Any) -> None:
    """Before uvicorn listens to signals, and once more after it has ended because of one."""
    raise SystemExit(Code.DONE)


def _run(settings: Settings, listener: socket.socket) -> None:
    from dure.cli.gateway import Gateway

    gateway = Gateway(settings, listener)
    # What is imported stays; no collection of garbage need walk through it, least while a large workflow is read.
    gc.collect()
    gc.freeze()
    try:
        gateway.run(sockets=[listener])
    except SystemExit as exc:
        if gateway.failure is not None:
            raise gateway.failure from None
        if exc.code != Code.DONE:  # uvicorn has a code of its own for an application that did not start
            raise typer.Exit(Code.FAILED) from None
        raise
