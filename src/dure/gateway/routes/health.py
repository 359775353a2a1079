"""Is it alive, is it ready, what are its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from dure.gateway.dependency import DureDep
from dure.gateway.metrics import exposition
from dure.gateway.render import json_response
from dure.gateway.schemas import Alive, Readiness
from dure.service import Health, Service

router = APIRouter(tags=["health"])

_PATIENCE_SECONDS = 3.0


@router.get("/healthz", summary="Alive?", response_model=Alive)
async def healthz() -> Response:
    """The process answers; it says nothing about the parts behind it."""
    return json_response({"status": "alive"})


@router.get(
    "/readyz",
    summary="Ready?",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Something is not ready; the checks say what"}},
)
async def readyz(request: Request, dure: DureDep) -> Response:
    """Ledger, broker and each service, by name. A gateway whose broker is away still accepts jobs."""
    services: list[Service] = request.app.state.services
    ledger, broker = await asyncio.gather(_check(dure.ledger.ping), _check(dure.link.ping))
    checks = {"ledger": ledger, "broker": broker} | {service.name: service.health() for service in services}
    ready = all(check.ok for check in checks.values())
    return json_response({"ready": ready, "checks": checks}, 200 if ready else 503)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Text exposition"}},
)
async def metrics(dure: DureDep) -> Response:
    return Response(await exposition(dure), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _check(ping: Callable[[], Awaitable[None]]) -> Health:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await ping()
    except Exception as exc:
        return Health(False, str(exc) or f"no answer within {_PATIENCE_SECONDS:g} s")
    return Health(True)
