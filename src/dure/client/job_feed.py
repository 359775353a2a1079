"""The feed of one job: what the ledger keeps, then what is pushed, to its end; `dure.follow` merges them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from dure.client.asking import Answer, Asking
from dure.client.mailbox import Mailbox, Push
from dure.entry import Told
from dure.errors import LedgerUnavailable
from dure.event import JobEvent
from dure.feed import FeedEvent
from dure.follow import Cursor, Follow, place_of
from dure.job import Job, State
from dure.watch import job_key

if TYPE_CHECKING:
    from dure.client.watching import Watching

log = structlog.get_logger("dure")

_AWAY_SECONDS = 1.0
_REST = 2  # times as long as the last answer took: a ledger or a process that is busy is asked less often
_RUNNING = frozenset({State.STARTED, State.RETRY})


class JobFeed:
    """One reader of a job. It may be slow, or stop reading: what it has not taken yet it gets from the ledger."""

    def __init__(self, watching: Watching, asking: Asking, job: Job, after: Cursor) -> None:
        self._watching = watching
        self._asking = asking
        self._follow = Follow(job, after)
        self._mail = Mailbox()
        self._reading: asyncio.Task[Answer] | None = None
        self._read_at = float("-inf")
        self._asked_at = float("-inf")
        self._wait_until = float("-inf")

    @property
    def job(self) -> Job:
        """The record as far as this reader knows it."""
        return self._follow.job

    @property
    def over(self) -> bool:
        """The reader has all, up to the result."""
        return self._follow.over

    async def open(self) -> None:
        """Begin to listen, unless the job has ended: then the ledger has all that there is."""
        if not (self._follow.over or self.job.state.final):
            await self._watching.subscribe(self, [job_key(self.job.id)], job_id=self.job.id)

    async def batch(self) -> list[FeedEvent]:
        """All that there is, at least one event; [] at the end."""
        if events := self._follow.begin():
            return events
        while not self._follow.over:
            if events := self._taken():
                return events
            if events := self._answered():
                return events
            await self._mail.wait(self._ask_if_due())
        await self.close()
        return []

    async def close(self) -> None:
        self._watching.unsubscribe(self)
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def push(self, event: Push, size: int) -> None:
        if self._mail.put(event, size):
            return
        for each, _ in [*self._mail.take(), (event, size)]:
            if isinstance(each, Told):
                self._follow.miss(each)
            else:  # a state is small
                self._mail.put(each, 0)
        self._follow.ask()
        self._mail.wake()

    def lost(self) -> None:
        self._follow.lost()
        self._mail.wake()

    def look(self, job: Job, *, away: bool) -> None:
        if place_of(job) > self._follow.place or (away and job.state in _RUNNING):
            self.lost()

    def _taken(self) -> list[FeedEvent]:
        events: list[FeedEvent] = []
        for event, size in self._mail.take():
            if isinstance(event, Told):
                events += self._follow.push(event, size)
            elif isinstance(event, JobEvent):
                events += self._follow.happen(event)
            else:
                self._follow.ask()
        return events

    def _ask_if_due(self) -> float | None:
        """Returns for how long nothing is to be asked, as far as it is known."""
        pause = self._follow.pause
        if self._reading is not None or pause is None:
            return None
        left = max(self._read_at + pause, self._wait_until) - time.monotonic()
        if left > 0:
            return left
        self._asked_at = time.monotonic()
        self._reading = asyncio.create_task(self._asking.feed(self.job.id, self._follow.seen))
        self._reading.add_done_callback(lambda _: self._mail.wake())
        return None

    def _answered(self) -> list[FeedEvent]:
        if self._reading is None or not self._reading.done():
            return []
        reading, self._reading = self._reading, None
        self._read_at = time.monotonic()
        self._wait_until = self._read_at + min(_REST * (self._read_at - self._asked_at), _AWAY_SECONDS)
        try:
            job, found = reading.result()
        except (LedgerUnavailable, SQLAlchemyError) as exc:
            log.warning("the ledger could not be asked; who watches goes on watching", error=str(exc))
            self._wait_until = self._read_at + _AWAY_SECONDS
            self._follow.ask()
            return []
        return self._follow.read(
            job or self.job,
            found.told,
            now=time.time(),
            dropped=found.dropped,
            more=found.more,
            last=found.last,
            complete=found.complete,
        )
