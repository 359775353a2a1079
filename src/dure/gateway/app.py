"""The gateway: the client behind HTTP, with recorder, relay and census in the same process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

import dure
from dure.gateway.credential import Credential
from dure.gateway.dependency import DureDep
from dure.gateway.feeds import OpenFeeds
from dure.gateway.guard import Guard
from dure.gateway.intake import Intake
from dure.gateway.lean import SubmitLane
from dure.gateway.openapi import with_tasks
from dure.gateway.problems import answer, problem
from dure.gateway.render import json_response
from dure.gateway.routes import api_router, health, submit
from dure.gateway.runtime import running
from dure.gateway.tokens import Tokens
from dure.settings import Settings

_TITLES = {404: "Not found", 405: "Method not allowed"}
_CORS: dict[str, Any] = {  # no credentials: a page shows a token, and no cookie means anything here
    "allow_methods": ("GET", "POST"),
    "allow_headers": ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer"),
    "expose_headers": ("Location", "Retry-After", "Preference-Applied", "Idempotent-Replayed", "Dure-Unique", "Link"),
}


def create_app(settings: Settings) -> FastAPI:
    """Raises ConfigurationError where the gateway would be open to everyone."""
    settings.require_closed()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(settings) as (app.state.dure, app.state.services):
            yield

    app = FastAPI(
        title="Dure",
        version=dure.__version__,
        summary="Submit jobs to Celery workers, and look them up",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.feeds = OpenFeeds()
    app.state.tokens = Tokens(settings)
    app.add_middleware(SubmitLane, prefix="/api/v1/tasks/", endpoint=submit.submit)
    app.add_middleware(Intake, body_limit=settings.body_limit)
    app.add_middleware(Guard, settings=settings, tokens=app.state.tokens)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **_CORS)
    app.add_middleware(Credential)  # the outermost: who is added last is asked first
    app.include_router(api_router())
    app.include_router(health.router)
    app.add_api_route("/openapi.json", openapi, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _internal)
    return app


async def openapi(request: Request, dure: DureDep) -> Response:
    await dure.catalogue.refresh()
    return json_response(with_tasks(request.app, dure.catalogue.tasks))


async def docs() -> Response:
    return get_swagger_ui_html(openapi_url="/openapi.json", title="Dure")


async def _http_problem(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # noqa: S101 - registered for it
    title = _TITLES.get(exc.status_code, "Request refused")
    return problem(exc.status_code, "http", title, str(exc.detail), headers=dict(exc.headers or {}))


async def _internal(request: Request, exc: Exception) -> Response:
    return answer(exc)
