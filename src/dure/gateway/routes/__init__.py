"""The routes under /api/v1, to be mounted here or in somebody else's application."""

from fastapi import APIRouter

from dure.gateway.routes import jobs, operate, submit


def api_router() -> APIRouter:
    router = APIRouter(prefix="/api/v1")
    for module in (submit, jobs, operate):
        router.include_router(module.router)
    return router
