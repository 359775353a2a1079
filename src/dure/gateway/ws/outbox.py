"""What leaves over one WebSocket: whole batches, one after another, and never without end for a reader that is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.websockets import WebSocket, WebSocketDisconnect

from dure.gateway.feeds import cut
from dure.gateway.ws.messages import Told, written

_OVER = "websocket"


class Outbox:
    """Who wants to send waits for who sends; nothing is encoded before its turn, so nothing piles up here.

    uvicorn's `send` waits while its transport holds more than 64 KiB, and the transport gets one message at a time.
    """

    def __init__(self, websocket: WebSocket, patience: float) -> None:
        self._websocket = websocket
        self._patience = patience
        self._turn = asyncio.Lock()

    async def send(self, *messages: Told) -> None:
        await self.send_all(messages)

    async def send_all(self, messages: Iterable[Told]) -> None:
        """Raises WebSocketDisconnect where the reader has gone, or was cut off for taking nothing."""
        async with self._turn:
            for message in messages:
                await self._put(written(message))

    async def _put(self, text: str) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._websocket.send_text(text)
        except TimeoutError:
            cut(self._websocket.scope, _OVER)
            raise WebSocketDisconnect(1013) from None
        except RuntimeError:  # it was closed by the other side's message, or by ours
            raise WebSocketDisconnect(1006) from None
