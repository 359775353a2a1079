"""Gathers the answers to one control broadcast."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec


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
