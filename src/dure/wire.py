"""Celery's wire <-> our values. Pure: no broker, no clock, no Celery.

Task messages are Celery's protocol 2 (docs.celeryq.dev, Internals, "Message Protocol"), events are those of
Celery's event reference ("Monitoring and Management Guide"), control messages are kombu's pidbox.

Three headers are ours; Celery carries headers that it does not know through a retry. A stock worker ignores them.

- `dure_retries`: how often a failed job is tried again.
- `dure_attempt`: how many attempts the job had before this message.
- `dure_deliveries`: how many of these did not end, where the broker does not count; a retry begins anew.

Beside Celery's events there are three of ours on its exchange: `dure-entries`, what a task tells while it runs;
`dure-told`, events of stock workers once more, for those who watch; and `dure-changed`, that the ledger knows more.
"""

from __future__ import annotations

import ast
import math
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from dure.entry import Position, Told, read_entries, read_told
from dure.event import JobEvent
from dure.job import Job, JobError, Reason, State
from dure.node import Node
from dure.task import Task

EVENT_EXCHANGE = "celeryev"
CONTROL_EXCHANGE = "celery.pidbox"
REPLY_EXCHANGE = "reply.celery.pidbox"

ENTRIES_KEY = "dure.entries"
TOLD_KEY = "dure.told"
CHANGED_KEY = "dure.changed"
KEYS_HEADER = "BCC"

RETRIES_HEADER = "dure_retries"
ATTEMPT_HEADER = "dure_attempt"

_REPR_LIMIT = 1024
_ORIGIN = f"dure@{os.getpid()}@{socket.gethostname()}"
_NO_EMBED = msgspec.Raw(b'{"callbacks":null,"errbacks":null,"chain":null,"chord":null}')


class Message(Struct, frozen=True):
    """A message ready for a link: `body` is JSON in UTF-8."""

    exchange: str
    routing_key: str
    body: bytes
    headers: dict[str, Any]
    properties: dict[str, Any]


class Announcement(Struct, frozen=True, kw_only=True):
    """What a worker told of itself in one `worker-tasks` event."""

    node: Node
    tasks: tuple[Task, ...]


class Heartbeat(Struct, frozen=True, kw_only=True):
    """`worker-online`, `-heartbeat` or `-offline`."""

    hostname: str
    at: float
    online: bool
    started: bool
    pid: int | None = None
    software: str | None = None
    processed: int | None = None


class Changed(Struct, frozen=True, kw_only=True, tag_field="type", tag="dure-changed", omit_defaults=True):
    """The ledger knows more of a job (`uuid`) or of a workflow (`root_id`) than any worker told: ask it."""

    uuid: str | None = None
    root_id: str | None = None
    task: str | None = None
    workflow: dict[str, str] | None = None  # its `id` and `state`, where these changed


WireEvent = JobEvent | Announcement | Heartbeat | Told | Changed


def task_message(job: Job) -> Message:
    """The message that makes any Celery worker run the job."""
    headers: dict[str, Any] = {
        "lang": "py",
        "task": job.task,
        "id": job.id,
        "group": job.group_id,
        "retries": 0,
        "root_id": job.workflow_id or job.root_id or job.id,
        "parent_id": job.parent_id,
        "argsrepr": _shortened(job.args or []),
        "kwargsrepr": _shortened(job.kwargs or {}),
        "origin": _ORIGIN,
    }
    # Headers that say nothing are left out: encoding them is a good part of what a message costs. `ignore_result` is
    # among them on purpose, for its absence leaves the choice to the task.
    if job.expires is not None:
        headers["expires"] = _iso(job.expires)
    if job.time_limit is not None:
        headers["timelimit"] = [job.time_limit, None]
    if job.retries:
        headers[RETRIES_HEADER] = job.retries
    properties: dict[str, Any] = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "correlation_id": job.id,
        "delivery_mode": 2,
    }
    if job.priority is not None:
        properties["priority"] = job.priority
    body = msgspec.json.encode((job.args or [], job.kwargs or {}, _NO_EMBED))
    return Message("", job.queue or "celery", body, headers, properties)


def event_message(body: bytes, routing_key: str, cc: Sequence[str] = ()) -> Message:
    """A message for those who listen just now, under its own key and the further ones."""
    return Message(
        EVENT_EXCHANGE,
        routing_key,
        body,
        {KEYS_HEADER: list(cc)} if cc else {},
        {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 1},
    )


def control_message(
    method: str,
    arguments: Mapping[str, Any],
    *,
    destination: list[str] | None = None,
    reply_to: str | None = None,
    ticket: str | None = None,
    expires_at: float,
) -> Message:
    """A broadcast to workers; with `reply_to` (a routing key on REPLY_EXCHANGE) they answer."""
    payload: dict[str, Any] = {
        "method": method,
        "arguments": dict(arguments),
        "destination": destination,
        "pattern": None,
        "matcher": None,
    }
    if reply_to is not None:
        payload |= {"ticket": ticket, "reply_to": {"exchange": REPLY_EXCHANGE, "routing_key": reply_to}}
    return Message(
        CONTROL_EXCHANGE,
        "",
        msgspec.json.encode(payload),
        {"clock": 0, "expires": expires_at},
        {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 1},
    )


def told_again(bodies: Iterable[bytes]) -> bytes:
    """Messages of stock workers as one of another type, so that nobody else who reads events counts them twice."""
    events = b",".join(body.strip().removeprefix(b"[").removesuffix(b"]") for body in bodies)
    return b'{"type":"dure-told","events":[' + events + b"]}"


def read_events(body: bytes) -> Iterator[WireEvent]:
    """The events of one message; what Dure does not know, or cannot read, is passed over."""
    if entries := read_entries(body):
        yield from entries
        return
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return
    if isinstance(decoded, dict) and decoded.get("type") == "dure-told":
        decoded = decoded.get("events")
    for fields in decoded if isinstance(decoded, list) else [decoded]:
        if isinstance(fields, dict):
            try:
                event = _read(fields)
            except (KeyError, TypeError, ValueError, OverflowError, msgspec.MsgspecError):
                continue
            if event is not None:
                yield event


def _read(fields: dict[str, Any]) -> WireEvent | None:
    kind = str(fields["type"])
    if kind.startswith("task-"):
        return _job_event(kind.removeprefix("task-"), fields)
    if kind == "worker-tasks":
        return _announcement(fields)
    if kind in ("worker-online", "worker-heartbeat", "worker-offline"):
        beat = {
            "hostname": fields["hostname"],
            "at": _moment(fields["timestamp"]),
            "online": kind != "worker-offline",
            "started": kind == "worker-online",
            "pid": fields.get("pid"),
            "software": _software(fields),
            "processed": fields.get("processed"),
        }
        return msgspec.convert(beat, Heartbeat)
    if kind == "dure-entries":
        return read_told(fields)
    if kind == "dure-changed":
        return msgspec.convert(fields, Changed)
    return None


def _job_event(kind: str, fields: dict[str, Any]) -> JobEvent | None:
    outcome = _OUTCOMES.get(kind)
    if outcome is None:
        return None
    retries = fields.get("retries")
    known: dict[str, Any] = {
        "job_id": fields["uuid"],
        "at": _moment(fields["timestamp"]),
        "worker": None if kind == "sent" else fields.get("hostname"),
        "attempt": None if kind == "sent" else int(fields.get("attempt") or 0),
        "attempts": 0 if kind == "sent" else int(retries or 0) + 1,
        "task": fields.get("name"),
        "args_repr": fields.get("args"),
        "kwargs_repr": fields.get("kwargs"),
        "queue": fields.get("queue"),
        "eta": _timestamp(fields.get("eta")),
        "root_id": fields.get("root_id"),
        "parent_id": fields.get("parent_id"),
        "group_id": fields.get("group_id"),
        "told": _place(fields.get("told")),
    }
    # Converted, for a value of another type than its column's would stop the recorder.
    return msgspec.convert(known | outcome(fields), JobEvent)


def _place(told: Any) -> Position | None:
    """None also where it cannot be read: the event itself is worth more."""
    try:
        place = msgspec.convert(told, Position)
    except msgspec.ValidationError:
        return None
    return place if place.run > 0 and place.n > 0 else None


def _succeeded(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "state": State.SUCCESS,
        "result": fields.get("value"),
        "has_result": "value" in fields,
        "result_repr": None if "value" in fields else fields.get("result"),
        "runtime": fields.get("runtime"),
    }


def _failed(fields: dict[str, Any]) -> dict[str, Any]:
    error = _error(fields)
    return {"state": State.FAILURE, "error": error, "reason": fields.get("reason") or reason_of(error.type)}


def _retried(fields: dict[str, Any]) -> dict[str, Any]:
    return {"state": State.RETRY, "error": _error(fields)}


def _revoked(fields: dict[str, Any]) -> dict[str, Any]:
    if fields.get("expired"):
        return {"state": State.FAILURE, "reason": Reason.EXPIRED}
    return {
        "state": State.REVOKED,
        "reason": Reason.TERMINATED if fields.get("terminated") else Reason.REVOKED,
    }


def _rejected(fields: dict[str, Any]) -> dict[str, Any]:
    if fields.get("requeue"):
        return {"state": State.QUEUED}
    return {"state": State.FAILURE, "reason": Reason.REJECTED}


_OUTCOMES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "sent": lambda fields: {"state": State.QUEUED},
    "received": lambda fields: {"state": State.QUEUED, "delivery": True},
    "started": lambda fields: {"state": State.STARTED},
    "succeeded": _succeeded,
    "failed": _failed,
    "retried": _retried,
    "revoked": _revoked,
    "rejected": _rejected,
    "ignored": lambda fields: {"state": State.REVOKED, "reason": Reason.IGNORED},
}

_REASONS = {
    "NotRegistered": Reason.UNREGISTERED,
    "WorkerLostError": Reason.WORKER_LOST,
    "TimeLimitExceeded": Reason.TIME_LIMIT,
    "SoftTimeLimitExceeded": Reason.TIME_LIMIT,
    "EncodeError": Reason.UNSERIALIZABLE,
}


def reason_of(error_type: str) -> str:
    return _REASONS.get(error_type.rpartition(".")[2], Reason.ERROR)


def _error(fields: dict[str, Any]) -> JobError:
    """Our worker's `error`; else what a stock event tells: the exception's repr and its traceback."""
    error = fields.get("error")
    if isinstance(error, dict):
        return msgspec.convert(error, JobError)
    text = str(fields.get("exception") or "")
    kind, bracket, rest = text.partition("(")
    if not bracket:
        kind, rest = "Exception", text
    told = {"type": kind, "message": _told_message(rest.removesuffix(")")), "traceback": fields.get("traceback")}
    return msgspec.convert(told, JobError)


def _told_message(told: str) -> str:
    """What stands between the brackets of an exception's repr; a single string without its quotes and escapes."""
    try:
        value = ast.literal_eval(told) if told[:1] in ("'", '"') else told
        if isinstance(value, str):
            value.encode()  # an escape may stand for what is no character
            return value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    return told


def _announcement(fields: dict[str, Any]) -> Announcement:
    at = _moment(fields["timestamp"])
    told = msgspec.convert(fields["tasks"], list[Task])
    known = {
        "hostname": fields["hostname"],
        "pool": fields.get("pool"),
        "concurrency": fields.get("concurrency"),
        "queues": fields.get("queues") or (),
        "software": _software(fields),
        "pid": fields.get("pid"),
        "heartbeat_at": at,
    }
    node = msgspec.convert(known, Node)
    tasks = tuple(msgspec.structs.replace(t, announced_at=at, announced_by=node.hostname) for t in told)
    return Announcement(node=node, tasks=tasks)


def _software(fields: dict[str, Any]) -> str | None:
    ident = fields.get("sw_ident")
    return f"{ident} {fields.get('sw_ver', '')}".strip() if ident else None


def _moment(told: Any) -> float:
    """To the microsecond, which is what ISO 8601 shows: a time that was read can be asked for again."""
    if isinstance(told, bool) or not isinstance(told, (int, float)) or not math.isfinite(told):
        raise ValueError("not a time")
    return round(float(told), 6)


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()


def _timestamp(iso: Any) -> float | None:
    if not iso:
        return None
    at = datetime.fromisoformat(str(iso))
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _shortened(value: Any) -> str:
    text = repr(tuple(value) if isinstance(value, list) else value)
    return text if len(text) <= _REPR_LIMIT else text[: _REPR_LIMIT - 3] + "..."
