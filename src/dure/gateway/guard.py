"""Who may call. Written as plain ASGI, for it is on the way of every request.

With API keys each request shows one, except the two health checks. Without keys the gateway listens on loopback, where
the danger is a browser on the same machine: a page from elsewhere could send requests to it. Such a page cannot name
this host (its requests carry its own name, also when DNS was rebound), and cannot send JSON without being asked first
(see `body`), so naming a loopback host and sending JSON are both required.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dure.gateway.problems import problem
from dure.settings import Settings

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "testserver"})


class Guard:
    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._keys = [key.get_secret_value().encode() for key in settings.api_keys]
        self._local_only = settings.is_loopback and not settings.insecure
        self._hosts = _LOCAL_HOSTS | {settings.host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if self._keys:
                if scope["path"] not in OPEN_PATHS and not self._shows_key(headers.get("authorization", "")):
                    await _UNAUTHORIZED(scope, receive, send)
                    return
            elif self._local_only and _hostname(headers.get("host", "")) not in self._hosts:
                await _FORBIDDEN(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _shows_key(self, authorization: str) -> bool:
        kind, _, shown = authorization.partition(" ")
        # Every key is compared, so that the time tells nothing about which came near.
        matches = [hmac.compare_digest(shown.strip().encode(), key) for key in self._keys]
        return kind.lower() == "bearer" and any(matches)


def _hostname(host: str) -> str:
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    return name.lower()


_UNAUTHORIZED = problem(
    401,
    "unauthorized",
    "An API key is needed",
    "send one of DURE_API_KEYS as Authorization: Bearer KEY",
    headers={"WWW-Authenticate": "Bearer"},
)
_FORBIDDEN = problem(
    403,
    "foreign-host",
    "Not a local request",
    "without API keys the gateway answers only requests to localhost; set DURE_API_KEYS to be called by other names",
)
