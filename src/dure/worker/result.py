"""A task's return value as JSON, on its way from the pool to the event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from kombu.exceptions import EncodeError
from kombu.utils.json import JSONEncoder
from pydantic_core import to_jsonable_python

_encoder = JSONEncoder()


class Result(str):
    """The repr that Celery's pool hands back, with the value's JSON; a plain string to all who don't know.

    `json` is None for a value over the limit, `size` says then how many bytes it has.
    """

    json: bytes | None
    size: int

    @classmethod
    def of(cls, text: str, encoded: bytes, limit: int) -> Result:
        result = cls(text)
        result.size = len(encoded)
        result.json = encoded if result.size <= limit else None
        return result

    def fields(self) -> dict[str, Any]:
        return {"value": msgspec.Raw(self.json)} if self.json is not None else {"value_bytes": self.size}


def encode(value: Any) -> bytes:
    """The value's JSON in UTF-8; not-a-number and infinity become null. Raises kombu's EncodeError."""
    try:
        return msgspec.json.encode(value, enc_hook=_plain)
    except _Refused as exc:
        raise _no_json(exc) from None
    except Exception:
        return _encode_slowly(value)


def _encode_slowly(value: Any) -> bytes:
    """What msgspec is too strict for: a string with half a character, and its like."""
    try:
        text = json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False)
    except Exception as exc:
        raise _no_json(exc) from None
    return text.encode("utf-8", "replace")


class _Refused(TypeError):
    pass


def _plain(value: Any) -> Any:
    """One object that is not of Python's plain types: a model, or what kombu or the application knows to encode."""
    # Reading an iterator would use it up, and may never end.
    if isinstance(value, Iterator):
        raise _Refused(f"{type(value).__name__} is an iterator")
    return to_jsonable_python(value, inf_nan_mode="null", fallback=_encoder.default)


def _no_json(exc: Exception) -> EncodeError:
    return EncodeError(f"the result is no JSON: {_reason(exc)}")


def _reason(exc: BaseException) -> str:
    try:
        return str(exc)[:500]
    except Exception:
        return type(exc).__name__
