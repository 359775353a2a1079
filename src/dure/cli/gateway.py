"""The gateway's application on uvicorn."""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from dure.cli.listener import url
from dure.cli.protocols import Http, WebSocket
from dure.errors import DureError
from dure.gateway.app import create_app
from dure.gateway.feeds import OpenFeeds
from dure.settings import Settings

log = structlog.get_logger("dure")

# Feeds are told to end; some other request may take as long as it likes.
_GRACE_SECONDS = 5


def _set_aside_what_stays() -> None:
    """Modules, routes and pools live as long as the process: without them a full collection takes 1 ms, not 100."""
    gc.collect()
    gc.freeze()


class Gateway(uvicorn.Server):
    """`failure` is the expected error that kept the application from starting; `run` then ends in SystemExit."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self.failure: DureError | OSError | None = None
        self._listener = listener
        app = create_app(settings)
        self._feeds: OpenFeeds = app.state.feeds
        app.router.lifespan_context = self._noting(app.router.lifespan_context)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                timeout_graceful_shutdown=_GRACE_SECONDS,
                server_header=False,
                http=Http,
                ws=WebSocket,
                ws_max_size=settings.body_limit,
                ws_per_message_deflate=False,  # its memory for each connection is a hundred times what a reader costs
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _set_aside_what_stays()
            log.info("gateway listens", url=url(self._listener))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._feeds.close()
        await super().shutdown(sockets)
        log.info("gateway stopped")

    def _noting(self, lifespan: Any) -> Any:
        @asynccontextmanager
        async def noted(app: FastAPI) -> AsyncIterator[Any]:
            try:
                async with lifespan(app) as state:
                    yield state
            except (DureError, OSError) as exc:
                self.failure = exc
                logging.getLogger("uvicorn.error").disabled = True  # the command tells it, without a traceback
                raise

        return noted
