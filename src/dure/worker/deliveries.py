"""What a message's headers tell of the deliveries before this one.

Two counts travel with a message that is sent anew:

- `dure_attempt`: every attempt that the job had before this message.
- `dure_deliveries`: those of them that did not end, since the job was submitted or last retried. A retry begins anew:
  its caller asked for it. It is written where the broker does not count by itself, and both go up together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from dure.dead import BROKER_HEADERS, DELIVERY_COUNT
from dure.wire import ATTEMPT_HEADER

DELIVERIES_HEADER = "dure_deliveries"

_OURS = "dure@"
_RANDOM_UUIDS = (1, 4, 6, 7)
# How the body was packed, and who else was to get the message: neither is true of a copy.
_OF_THE_ORIGINAL = frozenset({"compression", "CC", "BCC"})

# How far a job is: of two messages for one job, the one that is less far was sent earlier.
Stage = tuple[int, int]


def attempt_number(message: Any) -> int:
    """From 1: the attempts before this message, and the deliveries of this message before this one."""
    return 1 + _whole((message.headers or {}).get(ATTEMPT_HEADER)) + _delivered(message)


def unended(message: Any) -> int:
    """The deliveries before this one, none of which came to an end."""
    return _whole((message.headers or {}).get(DELIVERIES_HEADER)) + _delivered(message)


def is_counted(message: Any) -> bool:
    """Whether the broker counts the deliveries of this message."""
    headers = message.headers or {}
    return DELIVERY_COUNT in headers or "x-acquired-count" in headers


def is_redelivered(message: Any) -> bool:
    return bool((message.delivery_info or {}).get("redelivered"))


def stage(headers: Mapping[str, Any]) -> Stage:
    """A retry and a replacement keep the job's id."""
    return _whole(headers.get("replaced_task_nesting")), _whole(headers.get("retries"))


def is_only_one(message: Any) -> bool:
    """Whether no other message can have this id and stage, but for one that is the same.

    Plain Celery code may give its own ids, and use one again tomorrow.
    """
    headers = message.headers
    if str(headers.get("origin")).startswith(_OURS):
        return True
    try:
        known = UUID(headers["id"])
    except (ValueError, TypeError, AttributeError):
        return False
    return is_redelivered(message) and known.version in _RANDOM_UUIDS


def headers_of_copy(headers: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The headers of a message that is sent anew, without what was said of its delivery."""
    left_out = BROKER_HEADERS | _OF_THE_ORIGINAL
    return {name: value for name, value in headers.items() if name not in left_out} | more


def _delivered(message: Any) -> int:
    return _whole((message.headers or {}).get(DELIVERY_COUNT)) or int(is_redelivered(message))


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
