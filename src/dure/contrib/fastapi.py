"""Dure inside a FastAPI application of your own.

    app = FastAPI(lifespan=lifespan())
    app.include_router(router(), prefix="/dure")

    @app.post("/reports")
    async def make_report(dure: DureDep) -> dict[str, str]:
        job = await dure.submit(build_report, year=2026)
        return {"job": job.id}

The lifespan opens a client. The recorder that keeps history runs in `dure serve` or `dure up`; pass
`services=True` to run it in this application instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, FastAPI

from dure.client import Dure
from dure.gateway.dependency import DureDep, get_dure
from dure.gateway.routes import api_router
from dure.gateway.runtime import running
from dure.settings import Settings, load

__all__ = ["DureDep", "get_dure", "lifespan", "router"]


def lifespan(
    settings: Settings | None = None, *, services: bool = False
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A lifespan that keeps a client at `app.state.dure`."""

    @asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        chosen = settings or load()
        if services:
            async with running(chosen) as (app.state.dure, _):
                yield
        else:
            async with Dure(chosen) as app.state.dure:
                yield

    return opened


def router() -> APIRouter:
    """Every route under /api/v1. Who may call them is your application's affair."""
    return api_router()
