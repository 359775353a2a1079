"""The hot path: submitting a job.

FastAPI's own way to a handler (telemetry, exit stacks, two levels of routers, parameters, dependencies) takes more CPU
than the rest of a submission. A lean endpoint takes `request`, `dure` and the path's parameters, and its signature is
for the document. Its route skips the solving of parameters, wherever it is mounted; in the gateway itself the lane
answers before any routing is done. Both call the same endpoint.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dure.errors import DureError
from dure.gateway.problems import ProblemRoute, answer

Endpoint = Callable[..., Awaitable[Response]]


class LeanRoute(ProblemRoute):
    """For endpoints that read the request themselves."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            return await _call(endpoint, request, **request.path_params)

        return handle


class SubmitLane:
    """Takes `POST {prefix}{name}` to the endpoint; everything else goes on to the application."""

    def __init__(self, app: ASGIApp, prefix: str, endpoint: Endpoint) -> None:
        self._app = app
        self._prefix = prefix
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(self._prefix):
            name = scope["path"].removeprefix(self._prefix)
            if name and "/" not in name:
                response = await _call(self._endpoint, Request(scope, receive), name=name)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _call(endpoint: Endpoint, request: Request, **parameters: str) -> Response:
    try:
        return await endpoint(request=request, dure=request.app.state.dure, **parameters)
    except DureError as exc:
        return answer(exc)
