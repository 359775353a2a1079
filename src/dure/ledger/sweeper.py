"""Settles jobs that nobody speaks of: what is open in the ledger and was silent for a while is asked after.

In this order, and the first that knows decides:

1. Time. A job that is not begun and whose `expires` has passed will be begun by nobody: FAILURE `expired`.
2. The result backend. A stored end is the job's end; its event was lost.
3. The workers. Who runs a job, or holds it for later, says so, and it stays open.
4. The queue. Its message may still wait there. The embedded broker can be asked for it. RabbitMQ can't, but the message
   is not in a queue that is empty or gone, and not in one whose running jobs were queued well after it.

A job that all of them deny, twice, is nowhere. If nobody has begun it, its message is published once more, for what was
accepted is to be run. Otherwise, or when it is nowhere again, it ends FAILURE `lost`: nobody can say whether it ran.
Should its worker speak up later, folding puts that above.

Nothing is concluded from what could not be asked: while events wait to be recorded, while the broker is away, or where
somebody who did not answer consumes the job's queue (a worker that is stopped, one that sends no heartbeats, a dead
connection that RabbitMQ still believes in), jobs stay as they are.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from msgspec import Struct
from prometheus_client import Counter

from dure.event import JobEvent
from dure.job import Job, JobError, Reason, State
from dure.ledger.ledger import Ledger
from dure.ledger.results import NoResults, ResultReader, Stored
from dure.link import Link
from dure.node import Node, QueueDepth
from dure.service import Loop

log = structlog.get_logger("dure")

_BATCH = 5000
_ASKED_AT_ONCE = 500
_ALIVE_SECONDS = 30.0
_RESENT = 1  # what is swallowed twice would be swallowed again
_TIDY_SECONDS = 60.0
_DAY = 86_400.0
_EXPIRED_GRACE = 5.0  # a worker that began it in the last moment has told of it by then
_RETRY_SECONDS = 90.0  # longer than the longest pause before a retry, which waits where nobody can be asked

SETTLED = Counter("dure_jobs_settled_total", "Silent jobs that were settled, by what decided.", ["by"])


class Sweeper(Loop):
    """`settle_after` is the most seconds that an open job whose end was lost stays open, `reply_within` how long a
    worker may take to answer; what jobs told is kept for `feed_days`."""

    name = "sweeper"

    def __init__(
        self,
        ledger: Ledger,
        link: Link,
        *,
        event_queue: str,
        settle_after: float,
        results: ResultReader | None = None,
        reply_within: float = 3.0,
        feed_days: float = 7.0,
    ) -> None:
        super().__init__()
        self._ledger = ledger
        self._link = link
        self._event_queue = event_queue
        self._results = results or NoResults()
        self._reply_within = reply_within
        self._silence = settle_after * 0.8
        self._second_look = settle_after * 0.1
        self._pause = min(15.0, settle_after * 0.05)
        self._missed: dict[str, float] = {}
        self._feed_seconds = feed_days * _DAY
        self._tidied_at = 0.0

    async def run(self) -> None:
        while True:
            if self._link.connected and await self._is_told_everything():
                await self.expire(time.time())
                await self.settle(time.time())
            await self._tidy()
            self.alive()
            await asyncio.sleep(self._pause)

    async def expire(self, now: float) -> None:
        over = await self._ledger.expired_jobs(now - _EXPIRED_GRACE, limit=_BATCH)
        await self._end("time", [_ended(job, State.FAILURE, now, reason=Reason.EXPIRED) for job in over])

    async def settle(self, now: float) -> None:
        """One round: ends what can be settled, and notes the rest as asked after."""
        silent = await self._ledger.silent_jobs(now - self._silence, limit=_BATCH)
        jobs = {job.id: job for job in silent if not _is_meant_to_wait(job, now)}
        if jobs:
            await self._settle(jobs, now)
        waits = [job.id for job in silent if job.id not in jobs]
        if waits:
            await self._ledger.mark_checked(waits, now)

    async def _settle(self, jobs: Mapping[str, Job], now: float) -> None:
        stored = await self._stored(list(jobs))
        await self._end("result backend", [_from_store(jobs[job_id], end, now) for job_id, end in stored.items()])
        asked = {job_id: job for job_id, job in jobs.items() if job_id not in stored}
        view = await self._look_around(asked)
        missing = {job_id for job_id, job in asked.items() if view.denies(job)}
        self._missed = {job_id: self._missed.get(job_id, now) for job_id in missing}
        lost = [job_id for job_id in missing if now - self._missed[job_id] >= self._second_look]
        if lost and await self._is_told_everything():
            unchanged = await self._ledger.some_jobs(lost)
            still = [jobs[i] for i in lost if i in unchanged and unchanged[i].changed_at == jobs[i].changed_at]
            await self._give_up(still, now)
        known = [job_id for job_id in asked if job_id not in missing]
        if known:
            await self._ledger.mark_checked(known, now)

    async def _give_up(self, nowhere: Sequence[Job], now: float) -> None:
        ours = [job.id for job in nowhere if job.origin == "dure"]
        again = await self._ledger.publish_again(ours, now, most=_RESENT) if ours else set()
        for job_id in sorted(again):
            log.warning("a job's message is nowhere and is published anew", job=job_id)
            self._missed.pop(job_id, None)
        SETTLED.labels("publishing anew").inc(len(again))
        await self._end("nobody", [_lost(job, now) for job in nowhere if job.id not in again])

    async def _stored(self, ids: Sequence[str]) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for some in _chunks(ids):
            found |= await self._results.fetch(some)
        return found

    async def _look_around(self, jobs: Mapping[str, Job]) -> _View:
        """Workers first, then the queues: a message that moves between the two is seen in one of them."""
        now = time.time()
        nodes = [n for n in await self._ledger.workers() if n.online and now - n.heartbeat_at < _ALIVE_SECONDS]
        with_workers, answered = await self._ask_workers([node.hostname for node in nodes], list(jobs))
        by_queue: dict[str, list[str]] = {}
        for job_id, job in jobs.items():
            if job_id not in with_workers and job.queue is not None:
                by_queue.setdefault(job.queue, []).append(job_id)
        held = {queue: await self._link.holds(queue, ids) for queue, ids in by_queue.items()}
        unclear = [queue for queue, ids in held.items() if ids is None]
        depths = {depth.name: depth for depth in await self._link.queues(unclear)} if unclear else {}
        return _View(
            with_workers=with_workers,
            silent_queues=frozenset(_queues(node for node in nodes if node.hostname not in answered)),
            listeners=Tally(_queues(node for node in nodes if node.hostname in answered)),
            held=held,
            depths=depths,
            frontiers=await self._ledger.frontiers() if unclear else {},
            margin=self._silence / 2,
        )

    async def _ask_workers(self, names: Sequence[str], ids: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
        """The jobs that workers hold, and the workers that answered every question."""
        if not names or not ids:
            return frozenset(), frozenset(names)
        found: set[str] = set()
        answered = set(names)
        for some in _chunks(ids):
            told = await self._ask("query_task", {"ids": list(some)}, names)
            answered &= told.keys()
            found |= {job_id for holding in told.values() if isinstance(holding, dict) for job_id in holding}
        later = await self._ask("scheduled", {}, names)
        answered &= later.keys()
        found |= {job_id for waiting in later.values() for job_id in _scheduled(waiting)}
        return frozenset(found), frozenset(answered)

    async def _ask(self, command: str, arguments: dict[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
        return await self._link.broadcast(command, arguments, destination=names, timeout=self._reply_within)

    async def _is_told_everything(self) -> bool:
        """No event waits to be recorded."""
        (depth,) = await self._link.queues([self._event_queue])
        return depth.messages == 0

    async def _end(self, by: str, events: Sequence[JobEvent]) -> None:
        if events:
            changed = await self._ledger.record(events)
            SETTLED.labels(by).inc(len(changed))
            for job in changed:
                log.warning("a silent job was settled", job=job.id, by=by, state=job.state.value, reason=job.reason)

    async def _tidy(self) -> None:
        if time.monotonic() - self._tidied_at >= _TIDY_SECONDS:
            await self._ledger.drop_expired_keys(time.time())
            await self._ledger.drop_old_feed(time.time() - self._feed_seconds)
            self._tidied_at = time.monotonic()


class _View(Struct, frozen=True, kw_only=True):
    """What workers and queues told of silent jobs."""

    with_workers: frozenset[str]
    silent_queues: frozenset[str]
    listeners: Mapping[str, int]  # by queue: how many workers consume it and answered
    held: Mapping[str, frozenset[str] | None]
    depths: Mapping[str, QueueDepth]
    frontiers: Mapping[str, float]
    margin: float

    def denies(self, job: Job) -> bool:
        """Whether neither a worker nor its queue can have the job."""
        queue = job.queue
        if job.id in self.with_workers or queue is None or queue in self.silent_queues:
            return False
        held = self.held.get(queue)
        if held is not None:
            return job.id not in held
        depth = self.depths.get(queue)
        if depth is None or not depth.exists:
            return True
        if depth.consumers > self.listeners.get(queue, 0):
            return False
        if depth.messages == 0:
            return True
        queued_at = job.queued_at or job.created_at
        return queued_at < self.frontiers.get(queue, 0.0) - self.margin


def _is_meant_to_wait(job: Job, now: float) -> bool:
    """Held by Celery's own means where nobody can be asked: until its time, or between two attempts."""
    if job.eta is not None and job.eta > now - _RETRY_SECONDS:
        return True
    return job.state is State.RETRY and job.changed_at > now - _RETRY_SECONDS


def _ended(job: Job, state: State, at: float, **fields: Any) -> JobEvent:
    return JobEvent(job_id=job.id, state=state, at=at, **fields)


def _from_store(job: Job, end: Stored, now: float) -> JobEvent:
    reasons = {State.FAILURE: Reason.ERROR, State.REVOKED: Reason.REVOKED}
    return _ended(
        job,
        end.state,
        end.at or now,
        reason=reasons.get(end.state),
        result=end.result,
        has_result=end.has_result,
        error=end.error,
        worker=job.worker,
    )


def _lost(job: Job, now: float) -> JobEvent:
    message = "no worker, no queue and no result backend knows of the job any more"
    error = JobError(type="Lost", message=message)
    return _ended(job, State.FAILURE, now, reason=Reason.LOST, error=error, worker=job.worker)


def _queues(nodes: Iterable[Node]) -> Iterable[str]:
    return (queue for node in nodes for queue in node.queues)


def _scheduled(waiting: Any) -> Iterable[str]:
    for each in waiting if isinstance(waiting, list) else ():
        request = each.get("request") if isinstance(each, dict) else None
        if isinstance(request, dict) and isinstance(request.get("id"), str):
            yield request["id"]


def _chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _ASKED_AT_ONCE] for start in range(0, len(ids), _ASKED_AT_ONCE))
