"""What a caller shows of itself, taken out of the request before anything else sees it.

A browser's EventSource and WebSocket cannot send an `Authorization` header, so a token may also come as the query
parameter `token`, or among a WebSocket's subprotocols as `bearer.<token>`. A URL is what servers write into their logs,
ours and uvicorn's among them, and what ends up in errors and links. So the token leaves the request's scope here, in
place: the server that logs the request looks at the same scope.
"""

from __future__ import annotations

from urllib.parse import unquote_plus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

SHOWN = "dure.shown"  # in the scope: what came as a bearer in the header
TOKEN = "dure.token"  # noqa: S105 - in the scope: what came in the other two places, where only a token may stand

_PARAMETER = "token"
_SUBPROTOCOL = "bearer."
_HEADER = b"sec-websocket-protocol"


class Credential:
    """The outermost part: it judges nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            kind, _, shown = Headers(scope=scope).get("authorization", "").partition(" ")
            scope[SHOWN] = shown.strip() if kind.lower() == "bearer" else ""
            scope[TOKEN] = _from_query(scope) or _from_subprotocols(scope)
        await self._app(scope, receive, send)


def _from_query(scope: Scope) -> str:
    query: bytes = scope.get("query_string", b"")
    if not query:
        return ""
    token, kept = "", []
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if unquote_plus(name.decode("latin-1")) == _PARAMETER:
            token = unquote_plus(value.decode("latin-1"))
        else:
            kept.append(part)
    scope["query_string"] = b"&".join(kept)
    return token


def _from_subprotocols(scope: Scope) -> str:
    offered: list[str] = scope.get("subprotocols", [])
    tokens = [name for name in offered if name.startswith(_SUBPROTOCOL)]
    if not tokens:
        return ""
    scope["subprotocols"] = kept = [name for name in offered if name not in tokens]
    others = [(name, value) for name, value in scope["headers"] if name != _HEADER]
    scope["headers"] = [*others, (_HEADER, ", ".join(kept).encode())] if kept else others
    return tokens[-1].removeprefix(_SUBPROTOCOL)
