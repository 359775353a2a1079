"""A feed as server-sent events, written by the request's own task: an idle reader costs no other.

What the transport holds for one reader is bounded by the size of one write, since uvicorn's `send` waits until the
write before has gone; so a reader that takes nothing holds up its own task alone. After `feed_timeout` it is cut off.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec
import structlog
from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from dure.errors import DureError
from dure.feed import FeedEvent
from dure.gateway.deadline import Deadline, DeadlinePassed
from dure.gateway.feeds import Feed, OpenFeeds, cut
from dure.settings import Settings

log = structlog.get_logger("dure")

_OVER = "sse"
_ALIVE_SECONDS = 15.0
_LOOK_SECONDS = 1.0
_RETRY_MS = 1000
_HELLO = format_sse_event(comment="dure", retry=_RETRY_MS)
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

_encode = msgspec.json.Encoder(decimal_format="number").encode


def framed(events: Iterable[FeedEvent]) -> bytes:
    return b"".join(
        format_sse_event(data_str=_encode(event.data).decode(), event=event.kind.value, id=event.id) for event in events
    )


class FeedResponse(EventSourceResponse):
    """Owns the feed, and closes it. `until` is the time at which it ends though the feed goes on."""

    def __init__(self, feed: Feed, open_feeds: OpenFeeds, settings: Settings, *, until: float | None = None) -> None:
        super().__init__((), headers=_HEADERS)
        self._feed = feed
        self._open_feeds = open_feeds
        self._buffer = settings.feed_buffer
        self._patience = settings.feed_timeout
        self._until = until

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._deadline = Deadline()
        try:
            with self._open_feeds.reading(_OVER, self._deadline.now):
                await self._send(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._write(send, _HELLO)
                if await self._copy(Request(scope, receive), send):
                    await self._send(send, {"type": "http.response.body", "body": b""})
        except TimeoutError:
            if cut(scope, None if self._open_feeds.closing else _OVER):
                await receive()  # it tells that the connection has ended
        finally:
            self._deadline.close()
            await self._feed.close()

    async def _copy(self, request: Request, send: Send) -> bool:
        """Until the feed is over, or the reader has gone: then False. Raises TimeoutError for one that is too slow."""
        looked = time.monotonic()
        while not (self._open_feeds.closing or self._is_past()):
            events = await self._batch()
            if events == []:
                break
            await self._write(send, KEEPALIVE_COMMENT if events is None else framed(events))
            now = time.monotonic()
            if events is None or now - looked > _LOOK_SECONDS:
                looked = now
                if await request.is_disconnected():
                    return False
        return True

    async def _batch(self) -> list[FeedEvent] | None:
        """None where nothing came for a while, or the gateway leaves."""
        try:
            with self._deadline.within(self._longest()):
                return await self._feed.batch()
        except DeadlinePassed:
            return None
        except DureError as exc:
            log.warning("a feed ended early; its reader can resume it", error=str(exc))
            return []

    def _longest(self) -> float:
        if self._open_feeds.closing:
            return 0.0
        return _ALIVE_SECONDS if self._until is None else max(0.0, min(_ALIVE_SECONDS, self._until - time.time()))

    def _is_past(self) -> bool:
        return self._until is not None and time.time() >= self._until

    async def _write(self, send: Send, data: bytes) -> None:
        for start in range(0, len(data), self._buffer):
            part = data[start : start + self._buffer]
            await self._send(send, {"type": "http.response.body", "body": part, "more_body": True})

    async def _send(self, send: Send, message: dict[str, object]) -> None:
        with self._deadline.within(0.0 if self._open_feeds.closing else self._patience):
            await send(message)
