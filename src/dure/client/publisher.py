"""From committed rows to confirmed messages.

The row is there before the message, so a publish that fails loses nothing: the row stays due, and the relay publishes
it later. A message that no queue can take, although the queue was just declared, ends its job.

What is on its way is bounded. Past the bound, as when the broker takes nothing for a while, jobs are left to the relay,
in their rows and not in memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import structlog

from dure.batch import Batcher, Closed, Full
from dure.client.leases import Leases
from dure.errors import LedgerUnavailable, LinkError, QueueRefused, Unroutable
from dure.job import Job, Reason
from dure.ledger import Ledger
from dure.link import Link
from dure.wire import Message, task_message

log = structlog.get_logger("dure")

_LINGER_SECONDS = 0.05  # nobody waits for a row to say QUEUED
_MOST = 10_000  # jobs on their way to the broker
_AT_ONCE = 1000  # in one flight, so that the first of many are confirmed while the last are written
_MARK_AGAIN_SECONDS = 0.2


class Publisher:
    """Publishes jobs whose rows are committed, and marks them QUEUED once the broker has confirmed."""

    def __init__(self, link: Link, ledger: Ledger, defines: Callable[[str], bool]) -> None:
        """`defines` tells whether a queue is one that the Celery application defines."""
        self._link = link
        self._defines = defines
        self._ledger = ledger
        self._confirmed: Batcher[str, None] = Batcher(
            self._mark_queued, size=1000, bound=1_000_000, linger=_LINGER_SECONDS
        )
        self._leases = Leases(ledger)
        self._publishing: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def room(self) -> int:
        """How many more jobs may be on their way."""
        return max(0, _MOST - len(self._leases))

    def start(self, jobs: Sequence[Job]) -> None:
        """Publish in the background; what there is no room for is left to the relay."""
        if not self._link.connected or self._closing:
            return
        jobs = jobs[: self.room]
        for start in range(0, len(jobs), _AT_ONCE):
            portion = jobs[start : start + _AT_ONCE]
            self._leases.hold(job.id for job in portion)  # so that the next one sees how much room is left
            task = asyncio.create_task(self.publish(portion))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    async def publish(self, jobs: Sequence[Job]) -> None:
        """Returns when each message is confirmed, or is left to the relay."""
        self._leases.hold(job.id for job in jobs)
        marking: set[str] = set()
        try:
            for job, sent in await self._send(await self._with_queues(jobs)):
                outcome = await self._publish_again(job) if isinstance(sent, Unroutable) else sent
                if outcome is None:
                    self._mark(job.id)
                    marking.add(job.id)
                else:
                    log.debug("left to the relay", job=job.id, error=str(outcome))
        except LinkError as exc:
            log.debug("left to the relay", jobs=len(jobs), error=str(exc))
        finally:
            for job in jobs:
                if job.id not in marking:
                    self._leases.release(job.id)

    async def _send(self, jobs: Sequence[Job]) -> Iterable[tuple[Job, BaseException | None]]:
        written = [(job, message) for job in jobs if (message := await self._written(job)) is not None]
        outcomes = await self._link.publish([message for _, message in written])
        return zip((job for job, _ in written), outcomes, strict=True)

    async def _written(self, job: Job) -> Message | None:
        """A job that no message can tell of ends, and keeps no other back."""
        try:
            return task_message(job)
        except Exception as exc:
            await self._fail(job, exc)
            return None

    def _mark(self, job_id: str) -> None:
        def marked(future: asyncio.Future[None]) -> None:
            self._leases.release(job_id)
            if not future.cancelled() and (exc := future.exception()) is not None:
                log.warning("confirmed but not marked; the job may be published twice", job=job_id, error=str(exc))

        try:
            self._confirmed.put(job_id).add_done_callback(marked)
        except (Closed, Full):
            self._leases.release(job_id)

    async def _with_queues(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Those whose queue can be used; a queue that the broker refuses ends its jobs, and keeps no other back."""
        refused: dict[str, QueueRefused] = {}
        for queue in {job.queue for job in jobs if job.queue}:
            try:
                await self._declare(queue)
            except QueueRefused as exc:
                refused[queue] = exc
        for job in jobs:
            if job.queue in refused:
                await self._fail(job, refused[job.queue])
        return [job for job in jobs if job.queue not in refused]

    async def _declare(self, queue: str) -> None:
        await self._link.declare_queue(queue, defined_by_application=self._defines(queue))

    async def _fail(self, job: Job, exc: Exception) -> None:
        log.warning("a job cannot be published and ends", job=job.id, error=str(exc))
        with suppress(LedgerUnavailable):  # the row stays due, and the relay comes here again
            await self._ledger.fail_accepted(job.id, Reason.REJECTED, str(exc), time.time())

    async def _publish_again(self, job: Job) -> BaseException | None:
        """The queue was deleted behind our back: make it again, once."""
        message = task_message(job)
        try:
            await self._declare(message.routing_key)
            (outcome,) = await self._link.publish([message])
        except LinkError as exc:
            return exc
        if isinstance(outcome, Unroutable):
            await self._fail(job, outcome)
        return outcome

    async def close(self, timeout: float = 5.0) -> None:
        """Give what is on its way a moment; the rest is the relay's."""
        self._closing = True
        if self._publishing:
            await asyncio.wait(self._publishing, timeout=timeout)
        for task in self._publishing:
            task.cancel()
        await self._confirmed.close()
        self._leases.close()

    async def _mark_queued(self, ids: Sequence[str]) -> Sequence[None]:
        while True:
            try:
                await self._ledger.mark_queued(ids, time.time())
            except LedgerUnavailable:
                if self._closing:
                    raise
                await asyncio.sleep(_MARK_AGAIN_SECONDS)
            else:
                return [None] * len(ids)
