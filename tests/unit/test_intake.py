"""The gateway takes in only so much at once."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from dure.gateway.intake import Intake


class Slow:
    """An application that answers when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.inside += 1
        try:
            await self.let.wait()
        finally:
            self.inside -= 1
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def _asked(app: Intake, method: str = "POST", content: Any = b"x") -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        return await client.request(method, "/api/v1/tasks/a", content=content)


async def _inside(slow: Slow, number: int) -> None:
    while slow.inside < number:
        await asyncio.sleep(0)


async def _stream() -> Any:
    yield b"x"


async def test_one_request_too_many_is_answered_at_once_and_the_others_are_served() -> None:
    slow = Slow()
    app = Intake(slow, 1000, requests=2)
    waiting = [asyncio.create_task(_asked(app)) for _ in range(2)]
    await _inside(slow, 2)

    refused = await _asked(app)

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["type"] == "urn:dure:problem:busy"
    slow.let.set()
    assert [(await each).status_code for each in waiting] == [202, 202]
    assert (await _asked(app)).status_code == 202


@pytest.mark.parametrize("content", [b"x" * 600, _stream])
async def test_bodies_count_by_what_they_say_of_their_length_or_as_the_longest(content: Any) -> None:
    slow = Slow()
    app = Intake(slow, 1000, size=1500)
    waiting = asyncio.create_task(_asked(app, content=b"x" * 1000))
    await _inside(slow, 1)

    assert (await _asked(app, content=content() if callable(content) else content)).status_code == 503
    slow.let.set()
    assert (await waiting).status_code == 202


async def test_looking_up_is_never_kept_out() -> None:
    slow = Slow()
    slow.let.set()
    assert (await _asked(Intake(slow, 1000, requests=0), "GET")).status_code == 202
