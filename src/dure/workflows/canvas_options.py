"""The options of a Celery signature, as those of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from dure.errors import FieldError

LINKS = ("link", "link_error")

_AS_THEY_ARE = frozenset({"priority", "time_limit", "tags", "retries", "name", "needs", "on_failure"})
# How Celery publishes and what it has noted down of its own; nothing in it is about how the job is to run.
_PASSED_OVER = frozenset(
    {
        "add_to_parent",
        "argsrepr",
        "chord",
        "compression",
        "confirm_timeout",
        "connection",
        "delivery_mode",
        "group_id",
        "group_index",
        "ignore_result",
        "immediate",
        "kwargsrepr",
        "mandatory",
        "parent_id",
        "producer",
        "publisher",
        "replaced_task_nesting",
        "reply_to",
        "result_cls",
        "retry",
        "retry_policy",
        "root_id",
        "route_name",
        "shadow",
        "task_type",
    }
)
_REMEDIES = {
    "exchange": "Dure sends to a queue by its name; say queue",
    "routing_key": "Dure sends to a queue by its name; say queue",
    "headers": "Dure sends no headers of the caller's; give the task an argument",
    "stamped_headers": "Dure sends no stamps; say tags",
    "soft_time_limit": "set it on the task, or say time_limit",
    "task_id": "Dure gives the ids; say name, and look the node up by it",
}


def options_of(given: Mapping[str, Any], loc: tuple[str | int, ...], errors: list[FieldError]) -> dict[str, Any]:
    """What is not an option of Dure's is named in `errors`, with what to do about it."""
    frozen = "reply_to" in given  # then Celery made the task's id, and nobody asked for it
    stamps = given.get("stamped_headers") or ()
    options: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or name in _PASSED_OVER or name in stamps or (name == "task_id" and frozen):
            continue
        if name in _AS_THEY_ARE:
            options[name] = value
        elif name in _TURNED:
            options |= _TURNED[name](value)
        elif name == "serializer" and value == "json":
            continue
        elif name == "serializer":
            errors.append(FieldError((*loc, name), f"{value!r}: Dure sends JSON"))
        elif name != "stamped_headers" or stamps:
            remedy = _REMEDIES.get(name, "Dure has no such option; leave it out")
            errors.append(FieldError((*loc, name), remedy))
    if "delay" in options:
        options.pop("eta", None)  # as in Celery, where a countdown goes before an eta
    return options


def _moment(value: Any) -> Any:
    """Celery takes a time without an offset for UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return value


_TURNED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "queue": lambda value: {"queue": getattr(value, "name", value)},
    "countdown": lambda value: {"delay": max(0, value) if isinstance(value, int | float) else value},
    "eta": lambda value: {"eta": _moment(value)},
    "expires": lambda value: {"expires": _moment(value)},
}
