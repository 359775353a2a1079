"""The routes under /api/v1, to be mounted here or in somebody else's application."""

from itertools import groupby

from fastapi import APIRouter

from dure.gateway.problems import ProblemRoute
from dure.gateway.routes import (
    again,
    dead,
    events,
    jobs,
    operate,
    submit,
    tokens,
    websocket,
    workflow_operations,
    workflow_submit,
    workflows,
)

_MODULES = (
    submit,
    again,
    dead,
    jobs,
    workflow_submit,
    workflow_operations,
    workflows,
    operate,
    events,
    tokens,
    websocket,
)


def api_router() -> APIRouter:
    router = APIRouter(prefix="/api/v1")
    for module in _MODULES:
        router.include_router(module.router)
    return router


def _tell_methods() -> None:
    """Routes of one path and different methods stand in different modules; a 405 names the methods of all."""
    routes = [route for module in _MODULES for route in module.router.routes if isinstance(route, ProblemRoute)]
    routes.sort(key=lambda route: route.path)
    for _, alike in groupby(routes, key=lambda route: route.path):
        together = list(alike)
        allowed = frozenset(method for route in together for method in route.methods or ())
        for route in together:
            route.allowed = allowed


_tell_methods()
