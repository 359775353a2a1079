"""Waiting for jobs to end: pushed by the broker, and backed by the ledger.

While anybody waits, one feed of closing events is open. An event that carries the result ends the wait at once; one
that does not (a stock worker's) makes the ledger be asked often until the recorder has found the result. Events that
never came, because the feed was cut or the job ended before it was open, are made up for by asking the ledger once a
second about all who wait, in one query. A node of a workflow may end without an event, so the ledger is asked for it
more often; what a node returned is its result only if it is no workflow, which takes its place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import structlog
from sqlalchemy.exc import SQLAlchemyError

from dure.errors import LedgerUnavailable, LinkError
from dure.event import JobEvent, fold
from dure.job import Job, State
from dure.ledger import Ledger
from dure.link import EventFeed, Link
from dure.wire import read_events
from dure.workflows.compile import sub_workflow

log = structlog.get_logger("dure")

CLOSING = ("task.succeeded", "task.failed", "task.revoked", "task.rejected", "task.multi")
_ASK_SECONDS = 1.0
_ASK_FOR_NODES_SECONDS = 0.25
_ASK_SOON_SECONDS = 0.02
_SOON_SECONDS = 5.0
_QUIET_SECONDS = 30.0


class Waiting:
    """Everybody who waits in this process. The feed is closed again after a quiet while."""

    def __init__(self, link: Link, ledger: Ledger) -> None:
        self._link = link
        self._ledger = ledger
        self._waiters: dict[str, set[asyncio.Future[Job]]] = {}
        self._known: dict[str, Job] = {}
        self._soon: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = asyncio.Event()
        self._ask = asyncio.Event()

    async def listen(self) -> None:
        """Be ready before a job is submitted, so that a fast end is not missed; never waits long for a broker."""
        self._begin()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._ready.wait()

    def _begin(self) -> None:
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._read_feed()), asyncio.create_task(self._ask_ledger())]

    async def wait(self, job: Job, timeout: float | None) -> Job | None:
        """The job once it has ended, None when `timeout` seconds have passed; `job` is what is known of it."""
        if job.state.final:
            return job
        future: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job.id, set()).add(future)
        self._known.setdefault(job.id, job)
        if not self._ready.is_set():
            # The end may have been told before this began to listen: ask often at first.
            self._soon[job.id] = asyncio.get_running_loop().time() + _SOON_SECONDS
        try:
            await self.listen()
            self._ask.set()
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            return None
        finally:
            self._forget(job.id, future)

    async def close(self) -> None:
        await asyncio.gather(*self._stop(), return_exceptions=True)

    def _stop(self) -> list[asyncio.Task[None]]:
        """From here on the next `listen` begins anew; what is stopped needs no one to wait for it."""
        tasks, self._tasks = self._tasks, []
        self._ready.clear()
        for task in tasks:
            task.cancel()
        return tasks

    def _forget(self, job_id: str, future: asyncio.Future[Job]) -> None:
        waiters = self._waiters.get(job_id, set())
        waiters.discard(future)
        if not waiters:
            self._waiters.pop(job_id, None)
            self._known.pop(job_id, None)
            self._soon.pop(job_id, None)

    def _ended(self, job: Job) -> None:
        for future in self._waiters.get(job.id, ()):
            if not future.done():
                future.set_result(job)

    async def _read_feed(self) -> None:
        while True:
            try:
                feed = await self._link.events(CLOSING, durable=False)
            except (LinkError, OSError) as exc:
                log.debug("no events while the broker is away", error=str(exc))
                self._ready.set()  # the ledger alone must do
                await asyncio.sleep(1)
                continue
            self._ready.set()
            try:
                await self._push(feed)
            except LinkError:
                self._ready.clear()
            finally:
                await feed.close()

    async def _push(self, feed: EventFeed) -> None:
        while True:
            bodies = await feed.batch(500)
            for body in bodies:
                if self._waiters:
                    for event in read_events(body):
                        if isinstance(event, JobEvent) and event.job_id in self._waiters:
                            self._take(event)

    def _take(self, event: JobEvent) -> None:
        if not event.state.final:
            return
        if event.state is State.SUCCESS and (not event.has_result or self._goes_on(event)):
            self._soon[event.job_id] = asyncio.get_running_loop().time() + _SOON_SECONDS
            self._ask.set()
        else:
            self._ended(fold(self._known[event.job_id], event))

    def _goes_on(self, event: JobEvent) -> bool:
        """Whether the node is replaced by what it returned."""
        return self._known[event.job_id].workflow_id is not None and sub_workflow(event.result) is not None

    async def _ask_ledger(self) -> None:
        quiet_since = time.monotonic()
        while self._waiters or time.monotonic() - quiet_since < _QUIET_SECONDS:
            self._ask.clear()
            if self._waiters:
                quiet_since = time.monotonic()
                await self._look(list(self._waiters))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._ask.wait()
        self._stop()

    def _pause(self) -> float:
        if self._still_soon():
            return _ASK_SOON_SECONDS
        return _ASK_FOR_NODES_SECONDS if any(job.workflow_id for job in self._known.values()) else _ASK_SECONDS

    def _still_soon(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._soon = {job_id: until for job_id, until in self._soon.items() if until > now}
        return bool(self._soon)

    async def _look(self, ids: Sequence[str]) -> None:
        try:
            found = await self._ledger.some_jobs(ids)
        except (LedgerUnavailable, SQLAlchemyError) as exc:
            log.warning("the ledger could not be asked; those who wait go on waiting", error=str(exc))
            return
        for job in found.values():
            if job.state.final:
                self._ended(job)
            elif job.id in self._waiters:
                self._known[job.id] = job
