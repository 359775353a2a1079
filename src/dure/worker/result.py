"""A task's return value as JSON, on its way from the pool to the event.

A workflow that a task returns is no value but what comes next: it is told whole, or the task fails. It is what a
builder's `__json__` makes, `{"$workflow": …}`, or a signature of Celery's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from kombu.exceptions import EncodeError
from kombu.utils.json import JSONEncoder
from pydantic_core import to_jsonable_python

from dure.entry import Position
from dure.workflow import WORKFLOW_BYTES, is_workflow

_encoder = JSONEncoder()


class WorkflowTooLarge(EncodeError):
    """A task returned a workflow that no message takes."""


class Result(str):
    """The repr that Celery's pool hands back, with the value's JSON; a plain string to all who don't know.

    `json` is None for a value over the limit that is no workflow, `size` says then how many bytes it has. Both are None
    for a value that nobody wants. `told` is the place of the last entry that the attempt told.
    """

    json: bytes | None = None
    size: int | None = None
    told: Position | None = None

    @classmethod
    def of(cls, text: str, encoded: bytes, limit: int) -> Result:
        result = cls(text)
        result.size = len(encoded)
        result.json = encoded if len(encoded) <= limit or _has_workflow(encoded) else None
        return result

    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {} if self.told is None else {"told": self.told}
        if self.json is not None:
            fields["value"] = msgspec.Raw(self.json)
        elif self.size is not None:
            fields["value_bytes"] = self.size
        return fields


def encode(value: Any) -> bytes:
    """The value's JSON in UTF-8; not-a-number and infinity become null. Raises kombu's EncodeError.

    That of a workflow has all of its tasks, and no null for what was a number.
    """
    try:
        if hasattr(type(value), "__json__"):
            value = value.__json__()
        if is_workflow(value):
            return _within_limit(_encode_slowly(value))
        return msgspec.json.encode(value, enc_hook=_plain)
    except EncodeError:
        raise
    except _Refused as exc:
        raise _no_json(exc) from None
    except Exception:
        return _encode_slowly(value)


def _encode_slowly(value: Any) -> bytes:
    """What msgspec is too strict for, a string with half a character, and what it is too fast for.

    It reads the memory of Celery's lists, which are filled when they are iterated over: `group(generator)`.
    """
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
    if hasattr(type(value), "__json__"):
        return value.__json__()
    return to_jsonable_python(value, inf_nan_mode="null", fallback=_encoder.default)


def _has_workflow(encoded: bytes) -> bool:
    try:
        return encoded.startswith(b"{") and is_workflow(msgspec.json.decode(encoded, type=dict[str, msgspec.Raw]))
    except msgspec.DecodeError:
        return False


def _within_limit(encoded: bytes) -> bytes:
    if len(encoded) > WORKFLOW_BYTES:
        raise WorkflowTooLarge(
            f"the workflow has {len(encoded):,} bytes of JSON, and may have {WORKFLOW_BYTES:,}: "
            "pass large arguments by reference"
        )
    return encoded


def _no_json(exc: Exception) -> EncodeError:
    return EncodeError(f"the result is no JSON: {_reason(exc)}")


def _reason(exc: BaseException) -> str:
    try:
        return str(exc)[:500]
    except Exception:
        return type(exc).__name__
