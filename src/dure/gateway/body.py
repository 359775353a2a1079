"""Reads a request's JSON, within limits."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect

from dure.gateway.problems import BodyProblem

_DEPTH = 64


async def read_json(request: Request, limit: int) -> Any:
    """The body as JSON values; an empty body is None. Raises BodyProblem."""
    body = await _read(request, limit)
    if not body:
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise BodyProblem(
            415, "not-json", "The body must be JSON", f"send Content-Type: application/json, not {kind or 'nothing'}"
        )
    return decoded(body)


def decoded(body: bytes | str) -> Any:
    """Raises BodyProblem."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise BodyProblem(400, "malformed-json", "The body is not JSON", str(exc)) from None
    except RecursionError:
        raise _too_deep() from None
    if _deeper(value, _DEPTH):
        raise _too_deep()
    return value


async def _read(request: Request, limit: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    parts = bytearray()
    try:
        async for part in request.stream():
            parts += part
            if len(parts) > limit:
                raise _too_large(limit)
    except ClientDisconnect:
        raise BodyProblem(400, "disconnected", "The caller went away", "the body was cut off") from None
    return bytes(parts)


def _too_large(limit: int) -> BodyProblem:
    return BodyProblem(413, "too-large", "The body is too large", f"the limit is {limit} bytes (DURE_BODY_LIMIT)")


def _too_deep() -> BodyProblem:
    return BodyProblem(400, "too-deep", "The body is nested too deeply", f"the limit is {_DEPTH} levels")


def _deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects nest further than `levels`."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            child
            for parent in layer
            if isinstance(parent, (list, dict))
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (list, dict))
        ]
        if not layer:
            return False
    return True
