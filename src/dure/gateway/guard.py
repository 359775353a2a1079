"""Who may call. Written as plain ASGI, for it is on the way of every request.

With API keys each request shows one, except the two health checks; or it shows a token, which opens only what it was
made for (see `access`). Without keys the gateway listens on loopback, where the danger is a browser on the same
machine: a page from elsewhere could send requests to it. Such a page cannot name this host (its requests carry its own
name, also when DNS was rebound), and cannot send JSON without being asked first (see `body`), so naming a loopback host
and sending JSON are both required.

A WebSocket is the one thing that a browser opens to anywhere, and lets the page read. So its `Origin`, which browsers
always send and pages cannot change, must be this host or one of the setting `cors_origins`.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dure.gateway.access import GRANT, opens
from dure.gateway.credential import SHOWN, TOKEN
from dure.gateway.problems import answer, problem
from dure.gateway.tokens import Grant, InvalidToken, NotOpened, Tokens
from dure.gateway.ws.close import Close, refuse
from dure.settings import Settings

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "testserver"})


class Guard:
    def __init__(self, app: ASGIApp, settings: Settings, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens
        self._keys = [key.get_secret_value().encode() for key in settings.api_keys]
        self._local_only = settings.is_loopback and not settings.insecure
        self._hosts = _LOCAL_HOSTS | {settings.host.lower()}
        self._origins = frozenset(settings.cors_origins)
        self._any_origin = settings.insecure or "*" in self._origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            refusal = self._judge(scope, Headers(scope=scope))
            if refusal is not None:
                if scope["type"] == "http":
                    await refusal(scope, receive, send)
                else:
                    await refuse(scope, receive, send, _CLOSES[refusal.status_code])
                return
        await self._app(scope, receive, send)

    def _judge(self, scope: Scope, headers: Headers) -> Response | None:
        """The refusal, or None after the scope says which token was shown."""
        if not self._keys and self._local_only and _hostname(headers.get("host", "")) not in self._hosts:
            return _FOREIGN_HOST
        if scope["type"] == "websocket" and not self._is_from_here(headers):
            return _FOREIGN_ORIGIN
        if self._keys and self._is_key(scope[SHOWN]):
            return None
        try:
            grant = self._grant(scope)
        except InvalidToken as exc:
            return answer(exc)
        if grant is not None:
            scope[GRANT] = grant
            return None if opens(grant, scope) else answer(NotOpened())
        return _UNAUTHORIZED if self._keys and scope["path"] not in OPEN_PATHS else None

    def _grant(self, scope: Scope) -> Grant | None:
        """None where nothing was shown that could be a token. Raises InvalidToken."""
        if scope[TOKEN]:
            return self._tokens.read(scope[TOKEN])
        return self._tokens.read(scope[SHOWN]) if scope[SHOWN].count(".") == 2 else None

    def _is_key(self, shown: str) -> bool:
        # Every key is compared, so that the time tells nothing about which came near.
        matches = [hmac.compare_digest(shown.encode(), key) for key in self._keys]
        return any(matches)

    def _is_from_here(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None or self._any_origin or origin in self._origins:
            return True
        return origin.partition("://")[2] == headers.get("host", "").lower()


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
_FOREIGN_HOST = problem(
    403,
    "foreign-host",
    "Not a local request",
    "without API keys the gateway answers only requests to localhost; set DURE_API_KEYS to be called by other names",
)
_FOREIGN_ORIGIN = Response(status_code=403)  # only of a WebSocket, which is told by its close code
_CLOSES = {401: Close.UNAUTHORIZED, 403: Close.FORBIDDEN}
