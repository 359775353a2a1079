"""Folds events into the ledger: one transaction a batch, then the acknowledgement.

A crash between the two repeats the batch, which changes nothing. Several recorders compete for the one queue; rows
are locked while they fold. When the ledger is away the batch stays unacknowledged and the service starts again. A
batch that the ledger refuses for what is in it is folded event by event, so that one bad event costs only itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog
from msgspec import structs
from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError

from dure.entry import Told
from dure.event import JobEvent
from dure.job import State
from dure.ledger.ledger import Ledger
from dure.ledger.results import NoResults, ResultReader
from dure.link import EventFeed, Link
from dure.service import Loop
from dure.wire import ENTRIES_KEY, Announcement, Heartbeat, WireEvent, read_events

log = structlog.get_logger("dure")

PATTERNS = ("task.#", "worker.#", ENTRIES_KEY)

Tell = Callable[[bytes, Sequence[WireEvent]], None]
_BATCH = 1000
_LINGER_SECONDS = 0.005  # so that a short job's beginning is recorded with its end, in one transaction
# Who watches has entries from the broker; the fewer transactions they take, the better. So a recorder gathers them for
# some times as long as the last batch took, and for less than readers wait for what may be missing (SETTLE_SECONDS).
_ENTRIES_SECONDS = 0.02
_MOST_ENTRIES_SECONDS = 0.15
_GATHER = 5
_BATCH_BYTES = 4 * 1_048_576

EVENTS = Counter("dure_events_recorded_total", "Events folded into the ledger.")
ENTRIES = Counter("dure_entries_recorded_total", "What tasks told while they ran, written to the ledger.")
REFUSED = Counter("dure_events_refused_total", "Events that the ledger could not take.")


class Recorder(Loop):
    """`results` is asked for the values that stock workers do not put in their events; `tell` is given each message
    with its events as soon as it is read."""

    name = "recorder"

    def __init__(
        self, ledger: Ledger, link: Link, results: ResultReader | None = None, tell: Tell = lambda body, events: None
    ) -> None:
        super().__init__()
        self._ledger = ledger
        self._link = link
        self._results = results or NoResults()
        self._tell = tell
        self._gather = _ENTRIES_SECONDS

    async def run(self) -> None:
        feed = await self._link.events(PATTERNS, durable=True)
        try:
            self.alive()
            while True:
                events = await self._batch(feed)
                begun = time.monotonic()
                await self.record(events, heard=True)
                await feed.ack()
                took = time.monotonic() - begun
                self._gather = max(_ENTRIES_SECONDS, min(_GATHER * took, _MOST_ENTRIES_SECONDS))
                self.alive()
        finally:
            await feed.close()

    async def _batch(self, feed: EventFeed) -> list[WireEvent]:
        batch = _Batch()
        self._read(await feed.batch(_BATCH), batch)
        begun = time.monotonic()
        while not batch.is_due:
            left = begun + (self._gather if batch.has_only_entries else _LINGER_SECONDS) - time.monotonic()
            if left <= 0:
                break
            self._read(await feed.batch(_BATCH, within=left), batch)
        return batch.events

    def _read(self, bodies: Sequence[bytes], batch: _Batch) -> None:
        for body in bodies:
            events = list(read_events(body))
            self._tell(body, events)
            batch.add(events, len(body))

    async def record(self, events: Sequence[WireEvent], *, heard: bool = False) -> None:
        """What was `heard` at the broker others have heard, too."""
        job_events = await self._with_results([event for event in events if isinstance(event, JobEvent)])
        announcements = [event for event in events if isinstance(event, Announcement)]
        heartbeats = [event for event in events if isinstance(event, Heartbeat)]
        told = [event for event in events if isinstance(event, Told)]
        try:
            await self._ledger.record(job_events, announcements, heartbeats, told=told, heard=heard)
        except (SQLAlchemyError, UnicodeError, OverflowError) as exc:
            log.warning("a batch was refused; its events are folded one by one", error=_short(exc))
            await self._one_by_one([*told, *job_events, *announcements, *heartbeats], heard=heard)
        EVENTS.inc(len(events) - len(told))
        ENTRIES.inc(sum(len(each.entries) for each in told))

    async def _one_by_one(self, events: Sequence[JobEvent | Announcement | Heartbeat | Told], *, heard: bool) -> None:
        for event in events:
            try:
                await self._ledger.record(
                    [event] if isinstance(event, JobEvent) else [],
                    [event] if isinstance(event, Announcement) else [],
                    [event] if isinstance(event, Heartbeat) else [],
                    told=[event] if isinstance(event, Told) else [],
                    heard=heard,
                )
            except (SQLAlchemyError, UnicodeError, OverflowError) as exc:
                REFUSED.inc()
                log.warning("an event was refused", event=repr(event)[:500], error=_short(exc))

    async def _with_results(self, events: Sequence[JobEvent]) -> list[JobEvent]:
        """Give each success that came without its value the one in Celery's result backend."""
        bare = [event.job_id for event in events if event.state is State.SUCCESS and not event.has_result]
        if not bare:
            return list(events)
        found = await self._results.fetch(bare)
        values = {job_id: end.result for job_id, end in found.items() if end.has_result}
        return [
            structs.replace(event, result=values[event.job_id], has_result=True, result_repr=None)
            if event.state is State.SUCCESS and not event.has_result and event.job_id in values
            else event
            for event in events
        ]


class _Batch:
    """What is gathered for one transaction; each event is looked at once, however long that takes."""

    def __init__(self) -> None:
        self.events: list[WireEvent] = []
        self.has_only_entries = True
        self._is_urgent = False
        self._others = 0
        self._bytes = 0

    @property
    def is_due(self) -> bool:
        return self._is_urgent or self._others >= _BATCH or self._bytes >= _BATCH_BYTES

    def add(self, events: Sequence[WireEvent], size: int) -> None:
        self.events += events
        self._bytes += size
        for event in events:
            if not isinstance(event, Told):
                self.has_only_entries = False
                self._others += 1
                # Somebody may wait for the end of a job.
                self._is_urgent = self._is_urgent or (isinstance(event, JobEvent) and event.state.final)


def _short(exc: Exception) -> str:
    return str(exc).partition("\n")[0][:300]
