"""Dead letters: messages that no worker could run to an end, and what they tell of their jobs.

A broker that gives a message up writes why into its `x-death` header, most recent death first (rabbitmq.com/docs/dlx).
Queues without a dead-letter exchange drop what they give up; there our worker sends the message here itself, with
REASON_HEADER and QUEUE_HEADER in place of `x-death`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from dure.event import JobEvent
from dure.job import JobError, Reason, State

DELIVERY_COUNT = "x-delivery-count"
REASON_HEADER = "dure_reason"
QUEUE_HEADER = "dure_queue"

# What brokers write into the headers of a message that they deliver again or give up. A message that is sent anew
# must not carry them.
BROKER_HEADERS = frozenset(
    {
        DELIVERY_COUNT,
        "x-acquired-count",
        "x-death",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
    }
)

_KNOWN = frozenset(Reason)
_REASONS = {
    "rejected": Reason.REJECTED,
    "expired": Reason.EXPIRED,
    "maxlen": Reason.REJECTED,
    "delivery_limit": Reason.DELIVERY_LIMIT,
}
_TOLD = {
    Reason.DELIVERY_LIMIT: "the message was delivered as often as its limit allows, and never came to an end",
    Reason.EXPIRED: "the message expired in its queue before a worker took it",
    Reason.REJECTED: "the message was rejected",
}
_NOT_RUN = "the message could not be run"


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A message as it came: `reason` is one of `Reason`, `queue` the one that it was in."""

    body: bytes
    headers: Mapping[str, Any]
    reason: str
    queue: str | None = None

    @property
    def job_id(self) -> str | None:
        found = self.headers.get("id")
        return found if isinstance(found, str) and found else None


def read(body: bytes, headers: Mapping[str, Any], routing_key: str) -> DeadLetter:
    """Never raises: whoever can publish may have written the headers."""
    deaths = headers.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    told = _text(headers.get(REASON_HEADER)) or _REASONS.get(str(death.get("reason")), Reason.REJECTED)
    queue = headers.get(QUEUE_HEADER) or death.get("queue") or routing_key
    reason = Reason(told) if told in _KNOWN else Reason.REJECTED
    return DeadLetter(body=body, headers=headers, reason=reason, queue=str(queue) or None)


def event(letter: DeadLetter, at: float) -> JobEvent | None:
    """The end of the letter's job, below what a worker said of it; None for a message that is no job's."""
    job_id = letter.job_id
    if job_id is None or len(job_id) > 255:
        return None
    headers = letter.headers
    return JobEvent(
        job_id=job_id,
        state=State.FAILURE,
        at=at,
        reason=letter.reason,
        error=JobError(type="dure.errors.DeadLetter", message=_TOLD.get(Reason(letter.reason), _NOT_RUN)),
        task=_text(headers.get("task")),
        queue=letter.queue,
        args_repr=_text(headers.get("argsrepr")),
        kwargs_repr=_text(headers.get("kwargsrepr")),
        root_id=_text(headers.get("root_id")),
        parent_id=_text(headers.get("parent_id")),
        group_id=_text(headers.get("group")),
    )


def arguments(letter: DeadLetter) -> tuple[list[Any], dict[str, Any]] | None:
    """What the message would have called its task with, where it is Celery's protocol 2 in JSON."""
    try:
        args, kwargs, _ = msgspec.json.decode(letter.body, type=tuple[list[Any], dict[str, Any], Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return args, kwargs


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
