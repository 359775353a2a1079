"""Why a WebSocket was closed."""

from __future__ import annotations

from enum import IntEnum

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

PROTOCOL = "dure.v1"


class Close(IntEnum):
    """4401 and 4403 are read as HTTP's 401 and 403."""

    GOING_AWAY = 1001
    TOO_BIG = 1009
    RESTART = 1012
    TOO_SLOW = 1013
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403


_REASONS = {
    Close.UNAUTHORIZED: "a key, or a token whose time is not over, is needed",
    Close.FORBIDDEN: "this origin, or this host, is not allowed; see cors_origins",
}


def chosen(websocket: WebSocket) -> str | None:
    """A browser gives up where it offered protocols and none of them is chosen."""
    return PROTOCOL if PROTOCOL in websocket.scope.get("subprotocols", ()) else None


async def refuse(scope: Scope, receive: Receive, send: Send, close: Close) -> None:
    """Opens it first: a page is not told why a WebSocket could not be opened, but is why one was closed."""
    websocket = WebSocket(scope, receive, send)
    try:
        await websocket.accept(chosen(websocket))
        await websocket.close(close, _REASONS[close])
    except WebSocketDisconnect:
        return
