"""From committed rows to confirmed messages.

The row is there before the message, so a publish that fails loses nothing: the row stays due, and the relay publishes
it later. A message that no queue can take, although the queue was just declared, ends its job.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from dure.batch import Batcher, Closed, Full
from dure.errors import LedgerUnavailable, LinkError, QueueRefused, Unroutable
from dure.job import Job, Reason
from dure.ledger import Ledger
from dure.link import Link
from dure.wire import task_message

log = structlog.get_logger("dure")

_LINGER_SECONDS = 0.05  # nobody waits for a row to say QUEUED


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
        self._publishing: set[asyncio.Task[None]] = set()

    def start(self, jobs: Sequence[Job]) -> None:
        """Publish in the background."""
        task = asyncio.create_task(self.publish(jobs))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def publish(self, jobs: Sequence[Job]) -> None:
        """Returns when each message is confirmed, or is left to the relay."""
        try:
            jobs = await self._with_queues(jobs)
            outcomes = await self._link.publish([task_message(job) for job in jobs])
        except LinkError as exc:
            log.debug("left to the relay", jobs=len(jobs), error=str(exc))
            return
        for job, outcome in zip(jobs, outcomes, strict=True):
            if outcome is None:
                with suppress(Closed, Full):
                    self._confirmed.put(job.id).add_done_callback(_retrieved)
            elif isinstance(outcome, Unroutable):
                await self._publish_again(job)
            else:
                log.debug("left to the relay", job=job.id, error=str(outcome))

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

    async def _fail(self, job: Job, exc: LinkError) -> None:
        log.warning("a job cannot be published and ends", job=job.id, error=str(exc))
        with suppress(LedgerUnavailable):  # the row stays due, and the relay comes here again
            await self._ledger.fail_accepted(job.id, Reason.REJECTED, str(exc), time.time())

    async def _publish_again(self, job: Job) -> None:
        """The queue was deleted behind our back: make it again, once."""
        message = task_message(job)
        try:
            await self._declare(message.routing_key)
            (outcome,) = await self._link.publish([message])
        except LinkError:
            return
        if outcome is None:
            self._confirmed.put(job.id).add_done_callback(_retrieved)
        elif isinstance(outcome, Unroutable):
            await self._fail(job, outcome)

    async def close(self, timeout: float = 5.0) -> None:
        """Give what is on its way a moment; the rest is the relay's."""
        if self._publishing:
            await asyncio.wait(self._publishing, timeout=timeout)
        for task in self._publishing:
            task.cancel()
        await self._confirmed.close()

    async def _mark_queued(self, ids: Sequence[str]) -> Sequence[None]:
        await self._ledger.mark_queued(ids, time.time())
        return [None] * len(ids)


def _retrieved(future: asyncio.Future[None]) -> None:
    """A mark that could not be written is no loss: the relay publishes again, and the job runs at least once."""
    if not future.cancelled() and (exc := future.exception()) is not None:
        log.warning("confirmed but not marked", error=str(exc))
