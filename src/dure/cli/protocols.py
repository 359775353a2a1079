"""uvicorn's protocols with one thing more: the application can end a connection whose reader takes nothing.

ASGI has no word for that. A transport that is closed goes on waiting until its reader has taken what was written, which
such a reader does not; so the scope's extension `dure.cut` drops it.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from dure.gateway.feeds import CUT
from dure.gateway.ws.close import Close

_LAST_WORDS_SECONDS = 5.0


class Http(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CUT: self.transport.abort}  # type: ignore[dict-item]


class WebSocket(WebSocketsSansIOProtocol):
    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            self.scope["extensions"][CUT] = self._cut  # type: ignore[assignment]

    def _cut(self) -> None:
        """The reason stands behind what was written before; who begins to read again soon still gets to know it."""
        self.queue.put_nowait({"type": "websocket.disconnect", "code": Close.TOO_SLOW.value, "reason": ""})
        if not self.close_sent and not self.transport.is_closing():
            self.stop_keepalive()
            self.conn.send_close(Close.TOO_SLOW.value, "too slow")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.close_timer = self.loop.call_later(_LAST_WORDS_SECONDS, self.transport.abort)
            self.writable.set()
