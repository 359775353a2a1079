"""The feed of all jobs of a task, a queue or a tag: what is pushed about them from now on.

An id is a time, in Unix milliseconds. A feed that goes on from one begins with the jobs that changed since then, as
they are now, each at least once: clocks differ and recording takes a moment, so it looks back a little further.
Progress, output and log lines are told as they are pushed, and not made up for; the feed of a job does that.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import structlog
from msgspec import structs
from sqlalchemy.exc import SQLAlchemyError

from dure.client.mailbox import Mailbox, Push
from dure.entry import Told
from dure.errors import FieldError, InvalidCursor, InvalidSubmission, LedgerUnavailable
from dure.event import JobEvent, fold, unknown
from dure.feed import FeedEvent, FeedKind
from dure.feed_events import entry_event, result_event, state_event, where_of
from dure.follow import place_of
from dure.job import Job
from dure.ledger import JobFilter, Ledger
from dure.watch import ANY_TASK, task_key

if TYPE_CHECKING:
    from dure.client.watching import Watching

log = structlog.get_logger("dure")

_PAGE = 500
_LOOK_BACK = 5.0
_AWAY_SECONDS = 1.0
_KNOWN = 10_000
_WATCHED = frozenset({"task", "queue", "tag"})
_CURSOR = re.compile(r"\d{1,15}", re.ASCII)


class FilterFeed:
    """One reader. What it does not take in time it is told as it is then, from the ledger."""

    def __init__(self, watching: Watching, ledger: Ledger, wanted: JobFilter, after: str | None) -> None:
        """Raises InvalidCursor, or InvalidSubmission for what cannot be watched."""
        if wrong := sorted(name for name, value in structs.asdict(wanted).items() if value and name not in _WATCHED):
            message = "cannot be watched; what can is task, queue and tag"
            raise InvalidSubmission([FieldError((name,), message) for name in wrong])
        if after and not _CURSOR.fullmatch(after):
            raise InvalidCursor(after)
        self._watching = watching
        self._ledger = ledger
        self._wanted = wanted
        self._mail = Mailbox()
        self._at = time.time()
        self._since = int(after) / 1000 - _LOOK_BACK if after else None
        self._pushes: list[Push] = []  # being looked at
        self._known: dict[str, Job | None] = {}  # None: it is not wanted
        self._given: dict[str, int] = {}

    async def open(self) -> None:
        key = task_key(self._wanted.task) if self._wanted.task else ANY_TASK
        await self._watching.subscribe(self, [key])

    async def batch(self) -> list[FeedEvent]:
        """All that there is, at least one event. It has no end."""
        while True:
            pause = None
            try:
                if events := await self._changed() if self._since is not None else await self._taken():
                    return events
            except (LedgerUnavailable, SQLAlchemyError) as exc:
                log.warning("the ledger could not be asked; who watches goes on watching", error=str(exc))
                pause = _AWAY_SECONDS
                self.lost()
            if self._since is None or pause is not None:
                await self._mail.wait(pause)

    async def close(self) -> None:
        self._watching.unsubscribe(self)

    def push(self, event: Push, size: int) -> None:
        if not self._mail.put(event, size):
            self._mail.take()
            self.lost()

    def lost(self) -> None:
        if self._since is None:
            self._since = self._at - _LOOK_BACK
        self._mail.wake()

    def look(self, job: Job, *, away: bool) -> None: ...

    async def _changed(self) -> list[FeedEvent]:
        since = self._since or 0.0
        jobs = await self._ledger.changed_jobs(self._wanted, since, limit=_PAGE)
        events = [self._as_it_is(job, f"{job.changed_at * 1000:.0f}") for job in jobs if self._is_news(job)]
        if len(jobs) < _PAGE:
            self._since, self._at = None, time.time()
        else:
            self._since = jobs[-1].changed_at if jobs[-1].changed_at > since else since + 1e-6
        return events

    async def _taken(self) -> list[FeedEvent]:
        self._pushes += [event for event, _ in self._mail.take()]
        if not self._pushes:
            return []
        self._at = time.time()
        await self._get_to_know(self._pushes)
        pushes, self._pushes = self._pushes, []
        event_id = f"{self._at * 1000:.0f}"
        events: list[FeedEvent] = []
        for event in pushes:
            if isinstance(event, Told):
                if job := self._known.get(event.job_id):
                    where = where_of(job)
                    events += [entry_event(event_id, job.id, entry, where) for entry in event.entries]
            elif isinstance(event, JobEvent) and (known := self._known.get(event.job_id)):
                job = self._known[known.id] = fold(known, event)
                if self._is_news(job):
                    events.append(self._as_it_is(job, event_id))
            elif (job_id := getattr(event, "uuid", None)) and (job := self._known.get(job_id)) and self._is_news(job):
                events.append(self._as_it_is(job, event_id))
        return events

    async def _get_to_know(self, pushes: list[Push]) -> None:
        """What these are about; the ledger is asked where it alone knows."""
        by_task = self._wanted.queue is None and self._wanted.tag is None
        asked: set[str] = set()
        for event in pushes:
            if not isinstance(event, JobEvent | Told):
                asked.update({event.uuid} if event.uuid else ())
            elif event.job_id not in self._known:
                if by_task and isinstance(event, JobEvent) and event.task is not None:
                    self._know(event.job_id, unknown(event))
                else:
                    asked.add(event.job_id)
        if asked:
            found = await self._ledger.some_jobs(sorted(asked))
            for job_id, job in found.items():
                self._know(job_id, job if self._is_wanted(job) else None)

    def _know(self, job_id: str, job: Job | None) -> None:
        self._known.pop(job_id, None)
        while len(self._known) >= _KNOWN:
            del self._known[next(iter(self._known))]
        self._known[job_id] = job

    def _is_wanted(self, job: Job) -> bool:
        wanted = self._wanted
        return (
            wanted.task in (None, job.task)
            and wanted.queue in (None, job.queue)
            and (wanted.tag is None or wanted.tag in job.tags)
        )

    def _is_news(self, job: Job) -> bool:
        place = place_of(job)
        if place <= self._given.get(job.id, 0):
            return False
        self._given.pop(job.id, None)
        while len(self._given) >= _KNOWN:
            del self._given[next(iter(self._given))]
        self._given[job.id] = place
        return True

    def _as_it_is(self, job: Job, event_id: str) -> FeedEvent:
        if not job.state.final:
            return state_event(event_id, job)
        return structs.replace(result_event(event_id, job), kind=FeedKind.STATE)
