"""The worker's event dispatcher: Celery's, with the outbox as its way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from celery.events.dispatcher import EventDispatcher
from celery.events.event import group_from

from dure.watch import watch_keys
from dure.worker.outbox import Outbox

if TYPE_CHECKING:
    from dure.worker.request import Request


class Dispatcher(EventDispatcher):
    """Sends what the worker itself tells through the outbox.

    A dispatcher on a channel that someone else gave (`Task.send_event`) is Celery's own in everything.
    """

    outbox: ClassVar[Outbox]

    # The request whose `task-received` comes next: Celery's strategy sends that event itself.
    arriving: Request | None = None

    def __init__(self, connection: Any = None, hostname: str | None = None, **options: Any) -> None:
        super().__init__(connection, hostname, **options)
        self.relayed = connection is not None and options.get("channel") is None and self.enabled

    @property
    def tells_of_tasks(self) -> bool:
        return not self.groups or "task" in self.groups

    def send(self, type: str, **options: Any) -> None:  # type: ignore[override]
        if not self.relayed:
            super().send(type, **options)
            return
        for name in ("utcoffset", "retry", "retry_policy", "Event"):
            options.pop(name, None)
        if self.enabled:
            self.post(type, **options)

    def post(self, type: str, *, blind: bool = False, **fields: Any) -> None:
        """Send also while the consumer reconnects: an attempt that ends meanwhile must be told too."""
        group = group_from(type)
        if self.groups and group not in self.groups:
            return
        if type == "task-received":
            fields |= self._arrival(fields.get("uuid"))
        event = self._prepare_event(type, fields, blind=blind)  # type: ignore[attr-defined]
        self.outbox.put(type, msgspec.json.encode(event, enc_hook=_printed), _keys(fields))

    def _arrival(self, uuid: str | None) -> dict[str, Any]:
        """Requests arrive one by one, in the consumer's thread."""
        arriving, self.arriving = self.arriving, None
        if arriving is None or arriving.id != uuid:
            return {}
        return {"attempt": arriving.attempt, "queue": arriving.queue} | arriving.membership


def _keys(fields: Mapping[str, Any]) -> Sequence[str]:
    """Where this can be watched, if it is of a job."""
    job_id, task, root_id = fields.get("uuid"), fields.get("name"), fields.get("root_id")
    return watch_keys(job_id, task, root_id) if isinstance(job_id, str) else ()


def _printed(value: Any) -> str:
    """A string of a class of its own, or whatever a custom event holds."""
    return str(value) if isinstance(value, str) else repr(value)


def bound(outbox: Outbox) -> type[Dispatcher]:
    """The dispatcher class that sends through this outbox."""
    return type("Dispatcher", (Dispatcher,), {"outbox": outbox})
