"""Everybody who watches in this process: one feed of pushes, bound to the keys that somebody wants.

Who watches gives a sink. A message is decoded once, and each of its events is handed to the sinks under its keys. The
feed opens with the first sink and closes after a quiet while. When it was cut, all keys are bound anew, and each sink
is told that it may have missed something. Pushes can be lost without a word, too; so the ledger is asked about all jobs
that are watched, in one query for many: now and then, and once a second while the broker is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from dure.client.asking import Asking
from dure.client.filter_feed import FilterFeed
from dure.client.flow_feed import FlowFeed
from dure.client.job_feed import JobFeed
from dure.client.mailbox import Push
from dure.entry import Told
from dure.errors import LedgerUnavailable, LinkError, UnknownJob, UnknownWorkflow
from dure.event import JobEvent
from dure.feed import FeedEvent
from dure.follow import Cursor
from dure.job import FINAL, Job
from dure.ledger import JobFilter, Ledger
from dure.link import Link, WatchFeed
from dure.watch import ANY_TASK, job_key, root_key, watch_keys
from dure.wire import Changed, read_events

log = structlog.get_logger("dure")

_BATCH = 500
_BIND_SECONDS = 1.0
_AGAIN_SECONDS = 1.0
_QUIET_SECONDS = 30.0
_LOOK_SECONDS = 10.0
_LOOK_AT_ONCE = 500
_REMEMBERED = 2_000
_FINAL = frozenset(state.value for state in FINAL)


class Sink(Protocol):
    """Where pushes go; none of these waits."""

    def push(self, event: Push, size: int) -> None:
        """`size` is about how many bytes it had in its message."""
        ...

    def lost(self) -> None:
        """Pushes may have been missed: ask the ledger."""
        ...

    def look(self, job: Job, *, away: bool) -> None:
        """The record of the sink's job as the ledger has it now; `away` while nothing is pushed."""
        ...


class Watching:
    """The sinks of this process, and the feed that serves them."""

    def __init__(self, link: Link, ledger: Ledger) -> None:
        self._link = link
        self._ledger = ledger
        self._asking = Asking(ledger)
        self._sinks: dict[str, set[Sink]] = {}  # by key
        self._keys: dict[Sink, Collection[str]] = {}
        self._jobs: dict[Sink, str] = {}
        self._bound: set[str] = set()
        self._wanted = asyncio.Event()
        self._bound_more = asyncio.Condition()
        self._is_away = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open_job(self, job_id: str, after: str | None = None) -> JobFeed:
        """Raises UnknownJob, InvalidCursor, or LedgerUnavailable."""
        cursor = Cursor.parse(after)
        job = await self._asking.job(job_id) if is_id(job_id) else None
        if job is None:
            raise UnknownJob(job_id)
        feed = JobFeed(self, self._asking, job, cursor)
        await feed.open()
        return feed

    async def open_workflow(self, workflow_id: str, after: str | None = None) -> FlowFeed:
        """Raises UnknownWorkflow, InvalidCursor, or LedgerUnavailable."""
        feed = FlowFeed(self, self._ledger, workflow_id, after)
        workflow = await self._ledger.workflow(workflow_id) if is_id(workflow_id) else None
        if workflow is None:
            raise UnknownWorkflow(workflow_id)
        await feed.open(workflow)
        return feed

    async def open_filter(self, wanted: JobFilter, after: str | None = None) -> FilterFeed:
        """Raises InvalidCursor, or InvalidSubmission for a filter that cannot be watched."""
        feed = FilterFeed(self, self._ledger, wanted, after)
        await feed.open()
        return feed

    @contextmanager
    def woken(self, root_id: str, told: Callable[[], None], *, by_its_end: bool) -> Iterator[None]:
        """Meanwhile `told` is called when something of this workflow was told, or may have been; `by_its_end` only
        where it was its end."""
        sink = _Waker(told, by_its_end=by_its_end)
        self._add(sink, [root_key(root_id)])
        try:
            yield
        finally:
            self.unsubscribe(sink)

    async def subscribe(self, sink: Sink, keys: Collection[str], *, job_id: str | None = None) -> None:
        """Returns when the broker has the keys; never waits long for one that is away."""
        self._add(sink, keys, job_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(_BIND_SECONDS), self._bound_more:
                await self._bound_more.wait_for(lambda: self._is_away or self._bound.issuperset(keys))

    def unsubscribe(self, sink: Sink) -> None:
        self._jobs.pop(sink, None)
        for key in self._keys.pop(sink, ()):
            its = self._sinks[key]
            its.discard(sink)
            if not its:
                del self._sinks[key]
                self._wanted.set()

    async def close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._asking.close()

    def _add(self, sink: Sink, keys: Collection[str], job_id: str | None = None) -> None:
        self._keys[sink] = keys
        if job_id is not None:
            self._jobs[sink] = job_id
        for key in keys:
            self._sinks.setdefault(key, set()).add(sink)
        self._wanted.set()
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._run(), name="dure-watching"),
                asyncio.create_task(self._look_now_and_then(), name="dure-watching-ledger"),
            ]

    async def _run(self) -> None:
        cut = False
        while self._sinks:  # nothing is awaited between this and the end
            try:
                feed = await self._link.watch()
            except (LinkError, OSError) as exc:
                log.debug("nothing is pushed while the broker is away", error=str(exc))
                await self._go_away()
                cut = True
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            try:
                cut = await self._serve(feed, again=cut)
            finally:
                self._bound.clear()
                await feed.close()
            if cut:
                await self._go_away()
        self._end()

    def _end(self) -> None:
        """Nobody watches any more; the next one begins anew."""
        self._is_away = False
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._tasks = []

    async def _serve(self, feed: WatchFeed, *, again: bool) -> bool:
        """Returns whether the feed was cut: else nobody watches."""
        reading = asyncio.create_task(self._read(feed))
        binding = asyncio.create_task(self._bind(feed, again=again))
        try:
            await asyncio.wait([reading, binding], return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            binding.cancel()
            ends = await asyncio.gather(reading, binding, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                if not isinstance(end, LinkError | OSError):
                    log.error("watching failed; it begins anew", exc_info=end)
                return True
        return False

    async def _go_away(self) -> None:
        self._is_away = True
        async with self._bound_more:
            self._bound_more.notify_all()

    async def _bind(self, feed: WatchFeed, *, again: bool) -> None:
        """Keep the feed bound to what is wanted; returns when for a while nothing was."""
        while True:
            self._wanted.clear()
            if new := [key for key in self._sinks if key not in self._bound]:
                await feed.bind(new)
                self._bound.update(new)
                self._is_away = False
                self._wake(new)
                async with self._bound_more:
                    self._bound_more.notify_all()
            if again:
                again = False
                for sink in list(self._keys):
                    sink.lost()
            if gone := [key for key in self._bound if key not in self._sinks]:
                self._bound.difference_update(gone)
                await feed.unbind(gone)
            try:
                async with asyncio.timeout(None if self._sinks else _QUIET_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                if not self._sinks:
                    return

    def _wake(self, keys: Collection[str]) -> None:
        """Who did not wait for the broker may have missed what was told before."""
        for sink in {sink for key in keys for sink in self._sinks.get(key, ())}:
            if isinstance(sink, _Waker):
                sink.lost()

    async def _read(self, feed: WatchFeed) -> None:
        while True:
            for body in await feed.batch(_BATCH):
                events = [event for event in read_events(body) if isinstance(event, Told | JobEvent | Changed)]
                for event in events:
                    self._hand_out(event, len(body) // len(events))

    def _hand_out(self, event: Push, size: int) -> None:
        some = [its for key in _keys_of(event) if (its := self._sinks.get(key))]
        found = some[0] if len(some) == 1 else set[Sink]().union(*some)
        if isinstance(event, JobEvent) and event.task is None:  # a stock worker's, which does not say what it is of
            found = found | (self._keys.keys() - self._jobs.keys())
        for sink in tuple(found):
            sink.push(event, size)

    async def _look_now_and_then(self) -> None:
        while True:
            left = _LOOK_SECONDS
            while left > 0 and not self._is_away:
                await asyncio.sleep(_AGAIN_SECONDS)
                left -= _AGAIN_SECONDS
            await asyncio.sleep(_AGAIN_SECONDS)
            for sink in self._keys.keys() - self._jobs.keys():
                sink.lost()
            ids = sorted(set(self._jobs.values()))
            for start in range(0, len(ids), _LOOK_AT_ONCE):
                await self._look(ids[start : start + _LOOK_AT_ONCE])

    async def _look(self, ids: Sequence[str]) -> None:
        try:
            found = await self._ledger.some_jobs(ids)
        except (LedgerUnavailable, SQLAlchemyError) as exc:
            log.warning("the ledger could not be asked; who watches goes on watching", error=str(exc))
            return
        for job in found.values():
            for sink in list(self._sinks.get(job_key(job.id), ())):
                if self._jobs.get(sink) == job.id:
                    sink.look(job, away=self._is_away)


async def read_feed(open_feed: Callable[[], Awaitable[JobFeed | FlowFeed | FilterFeed]]) -> AsyncIterator[FeedEvent]:
    """Event by event, to the end of the feed."""
    feed = await open_feed()
    try:
        while events := await feed.batch():
            for event in events:
                yield event
    finally:
        await feed.close()


class _Waker:
    def __init__(self, told: Callable[[], None], *, by_its_end: bool) -> None:
        self._told = told
        self._by_its_end = by_its_end

    def push(self, event: Push, size: int) -> None:
        if not self._by_its_end or _is_the_end(event):
            self._told()

    def lost(self) -> None:
        self._told()

    def look(self, job: Job, *, away: bool) -> None: ...


def _is_the_end(event: Push) -> bool:
    """Of a whole workflow."""
    return isinstance(event, Changed) and event.workflow is not None and event.workflow.get("state") in _FINAL


def _keys_of(event: Push) -> list[str]:
    job_id = event.uuid if isinstance(event, Changed) else event.job_id
    return [*_keys(job_id or "", event.task, event.root_id), ANY_TASK]


# What is told of a job now is mostly told of it soon again.
_keys = lru_cache(maxsize=_REMEMBERED)(watch_keys)


def is_id(text: str) -> bool:
    return 0 < len(text) <= 255 and text.isprintable()
