"""How much the gateway takes in at once, so that a slow ledger cannot fill its memory.

Requests that wait for the ledger hold their bodies. Past so many of them, or so many bytes, the next is answered 503
with Retry-After before its body is read. Written as plain ASGI, for it is on the way of every request.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dure.gateway.problems import problem

_REQUESTS = 4_000
_BYTES = 64 * 1_048_576


class Intake:
    """`body_limit` is what a body is taken for that does not say how long it is."""

    def __init__(self, app: ASGIApp, body_limit: int, *, requests: int = _REQUESTS, size: int = _BYTES) -> None:
        self._app = app
        self._body_limit = body_limit
        self._most_requests = requests
        self._most_bytes = max(size, body_limit)
        self._requests = 0
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        size = self._size(Headers(scope=scope))
        if self._requests >= self._most_requests or self._bytes + size > self._most_bytes:
            await _BUSY(scope, receive, send)
            return
        self._requests += 1
        self._bytes += size
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests -= 1
            self._bytes -= size

    def _size(self, headers: Headers) -> int:
        told = headers.get("content-length", "")
        return min(int(told), self._body_limit) if told.isdigit() else self._body_limit


_BUSY = problem(
    503,
    "busy",
    "Too many requests wait already",
    "the gateway holds as many submissions as it can; try again soon",
    headers={"Retry-After": "1"},
)
