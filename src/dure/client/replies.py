"""One control broadcast that is answered, and the gathering of its answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import msgspec

from dure.wire import Message, control_message


def question(
    method: str, arguments: Mapping[str, Any], destination: Sequence[str] | None, timeout: float
) -> tuple[Message, str, Replies]:
    """The message, the routing key that its answers come by, and who gathers them; with no timeout none are asked for.

    Workers pass over a message that is older than the asker would have waited.
    """
    ticket, route = str(uuid4()), str(uuid4())
    message = control_message(
        method,
        arguments,
        destination=None if destination is None else list(destination),
        reply_to=route if timeout else None,
        ticket=ticket,
        expires_at=time.time() + max(timeout, 1.0),
    )
    return message, route, Replies(ticket, expected=None if destination is None else len(destination))


class Replies:
    """Complete when `expected` workers have answered; with None only time ends the gathering."""

    def __init__(self, ticket: str, *, expected: int | None) -> None:
        self._ticket = ticket
        self._expected = expected
        self._found: dict[str, Any] = {}
        self._complete = asyncio.Event()

    def take(self, headers: Mapping[str, Any], body: bytes) -> None:
        if headers.get("ticket") != self._ticket:
            return
        with suppress(msgspec.DecodeError):
            answer = msgspec.json.decode(body)
            if isinstance(answer, dict):
                self._found |= answer
        if self._expected is not None and len(self._found) >= self._expected:
            self._complete.set()

    async def collect(self, timeout: float) -> Mapping[str, Any]:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._complete.wait()
        return self._found
