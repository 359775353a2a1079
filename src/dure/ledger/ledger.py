"""The ledger: jobs, tasks, workers and queues in SQL, on SQLite or PostgreSQL. Each call is one transaction."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from dure.entry import Position, Told
from dure.event import JobEvent
from dure.job import Job, State
from dure.ledger import (
    advance,
    feed,
    feed_changes,
    feed_entries,
    flow_retry,
    flow_writes,
    flows,
    folding,
    foreign,
    keys,
    reads,
    silent,
    trips,
    writes,
)
from dure.ledger.database import Database, whole
from dure.ledger.feed import FeedRow, JobEntries
from dure.ledger.feed_marks import Limits
from dure.ledger.flow_writes import Cancelled
from dure.ledger.flows import WorkflowPage, WorkflowView
from dure.ledger.keys import Outcome, Request
from dure.ledger.reads import Group, JobFilter, Page
from dure.node import Node, Running
from dure.task import Task
from dure.wire import Announcement, Heartbeat
from dure.workflow import Workflow

RELEASE_LEASE = 4.0

_START = Position()


class Ledger(Database):
    """One database. `open` brings it to the present schema; `url` is `sqlite:///…` or `postgresql://…`. `kept` is the
    most that is kept of what one job tells.

    A question that has no answer after `timeout` seconds raises LedgerUnavailable; a write goes on until the database
    answers or the connection is lost, also where its caller has gone.
    """

    def __init__(self, url: str, *, pool_size: int = 8, timeout: float = 10.0, kept: Limits | None = None) -> None:
        super().__init__(url, pool_size=pool_size, timeout=timeout)
        self._kept = kept or Limits()
        self._queues: set[str] = set()
        self.on_release: Callable[[Sequence[Job]], None] | None = None
        """Is given the nodes that a transaction has begun, to publish them; who has none leaves them to the relay."""
        self.on_change: Callable[[Sequence[Job], Sequence[Workflow]], None] | None = None
        """Is given, after the commit, what no worker tells of: ends and cancellations that the ledger itself has
        written, the nodes whose workflow's log has more now, and workflows that changed. Each is as the transaction
        last saw it; of a node that has only told entries only its place, its task and its state are known."""

    @whole
    async def accept(self, batch: Sequence[tuple[Job, float]]) -> None:
        """Insert new jobs, all or none. Each comes with the time from which the relay may publish it."""
        async with self._writing() as connection:
            await writes.insert_jobs(connection, batch)
            noted = await self._note_queues(connection, (job.queue for job, _ in batch if job.queue))
        self._queues |= noted

    @whole
    async def accept_once(self, requests: Sequence[Request], now: float) -> list[Outcome]:
        """Insert the jobs of requests with keys, each request all or none; a key that is held answers its jobs."""
        async with self._writing() as connection:
            outcomes = await keys.accept_once(connection, requests, now)
            ready = [node.job.id for r in requests if r.flow is not None for node in advance.beginners(r.flow)]
            released = await advance.begin(connection, ready, now, lease=self._lease)
            wanted = [*(job for r in requests for job in r.all_jobs), *released]
            noted = await self._note_queues(connection, (job.queue for job in wanted if job.queue))
        self._queues |= noted
        self._release(released)
        return outcomes

    @whole
    async def renew_due(self, ids: Sequence[str], until: float) -> None:
        """Keep rows that are being published from becoming due before `until`."""
        async with self._writing() as connection:
            await writes.renew_due(connection, ids, until)

    @whole
    async def request_cancel(self, job_id: str, at: float, *, due_at: float) -> Job | None:
        """Revoke a job that nobody has begun, ask for the end of one that runs; raises JobEnded.

        From `due_at` on the relay may tell the broker.
        """
        async with self._writing() as connection:
            await advance.lock_of(connection, [job_id])
            job = await writes.request_cancel(connection, job_id, at, due_at)
            released = await advance.pass_on(connection, [job] if job else [], at, lease=self._lease)
        self._release(released)
        return job

    @whole
    async def mark_revoked(self, ids: Sequence[str]) -> None:
        async with self._writing() as connection:
            await writes.mark_revoked(connection, ids)

    @whole
    async def mark_checked(self, ids: Sequence[str], at: float) -> None:
        async with self._writing() as connection:
            await silent.mark_checked(connection, ids, at)

    @whole
    async def publish_again(self, ids: Sequence[str], at: float, *, most: int) -> set[str]:
        """Give these jobs to the relay anew, as far as nobody has begun them; each at most `most` times."""
        async with self._writing() as connection:
            return await silent.publish_again(connection, ids, at, most)

    @whole
    async def drop_expired_keys(self, now: float, *, limit: int = 10_000) -> int:
        async with self._writing() as connection:
            return await keys.drop_expired(connection, now, limit)

    @whole
    async def fill_arguments(self, told: Mapping[str, tuple[list[Any], dict[str, Any]]]) -> None:
        """What a dead letter called its task with, for jobs whose arguments nobody knew."""
        async with self._writing() as connection:
            await writes.fill_arguments(connection, told)

    @whole
    async def mark_queued(self, ids: Sequence[str], at: float) -> None:
        async with self._writing_once() as connection:
            await writes.mark_queued(connection, ids, at)

    @whole
    async def fail_accepted(self, job_id: str, reason: str, message: str, at: float) -> None:
        """A job whose message can never be published ends; one that a worker has, or that is cancelled, is left
        alone."""
        end = folding.never_published(job_id, reason, message, at)
        async with self._writing() as connection:
            known = await advance.lock_batch(connection, [end])
            if not all(map(folding.is_nobodys, known.rows)):
                return
            folded = folding.fold_into(connection, known.rows, [end], at)
            feed_changes.of(connection).tell(folded.changed)
            released = await advance.pass_on_folded(connection, folded, known, at, lease=self._lease)
        self._release(released)

    @whole
    async def claim_due(self, now: float, *, lease: float, limit: int) -> list[Job]:
        async with self._writing() as connection:
            return await writes.claim_due(connection, now, lease, limit)

    @whole
    async def record(
        self,
        events: Sequence[JobEvent],
        announcements: Sequence[Announcement] = (),
        heartbeats: Sequence[Heartbeat] = (),
        *,
        told: Sequence[Told] = (),
        heard: bool = False,
        now: float | None = None,
    ) -> list[Job]:
        """Fold a batch of what happened, keep what attempts told, and pass on the ends of nodes; returns the jobs of
        the batch that changed. What was `heard` at the broker others have heard, too."""
        now = time.time() if now is None else now
        told = [each for each in told if each.entries]
        while True:
            try:
                return await self._record(events, announcements, heartbeats, told, heard, now)
            except writes.Strange as exc:
                events = [*events, *feed_entries.implied(told, exc.ids, events)]
                async with self._writing() as connection:
                    await writes.insert_unknown(connection, [event for event in events if event.job_id in exc.ids])

    async def _record(
        self,
        events: Sequence[JobEvent],
        announcements: Sequence[Announcement],
        heartbeats: Sequence[Heartbeat],
        told: Sequence[Told],
        heard: bool,
        now: float,
    ) -> list[Job]:
        async with self._writing() as connection:
            changes = feed_changes.of(connection)
            taken = None
            if told or any(event.told for event in events):
                await advance.lock_of(
                    connection, {each.job_id for each in told}.union(event.job_id for event in events)
                )
                taken = await feed_entries.take(connection, told, events, now, self._kept)
            known = await advance.lock_batch(connection, events)
            folded = folding.fold_into(connection, known.rows, events, now)
            if taken is not None:
                changes.entries(taken.rows, taken.tellers)
            if not heard:
                changes.tell(folded.changed)
            released = await advance.pass_on_folded(connection, folded, known, now, lease=self._lease)
            if announcements or heartbeats:
                await trips.flush(connection)
                await writes.upsert_workers(connection, [each.node for each in announcements], heartbeats)
                await writes.upsert_tasks(connection, [task for each in announcements for task in each.tasks])
            queues = {queue for each in announcements for queue in each.node.queues}
            noted = await self._note_queues(
                connection, queues | {job.queue for job in (*folded.changed, *released) if job.queue}
            )
        self._queues |= noted
        self._release(released)
        return folded.changed

    async def _note_queues(self, connection: AsyncConnection, names: Iterable[str]) -> set[str]:
        """Write those not known yet, so that most batches write none; they are known once committed."""
        unseen = set(names) - self._queues
        if unseen:
            await trips.flush(connection)
            await writes.insert_queues(connection, unseen)
        return unseen

    @whole
    async def cancel_workflow(self, workflow_id: str, at: float, *, due_at: float) -> Cancelled | None:
        """Revoke the nodes that nobody has begun, ask for the end of those that run; raises WorkflowEnded.

        The workflow ends when they have. From `due_at` on the relay may tell the broker.
        """
        async with self._writing() as connection:
            return await flow_writes.cancel(connection, workflow_id, at, due_at)

    @whole
    async def end_overdue(self, now: float, *, due_at: float) -> list[Cancelled]:
        """End some workflows whose time is over, and their nodes as if they were cancelled."""
        if not await self._ask(lambda connection: flow_writes.overdue(connection, now)):
            return []
        async with self._writing() as connection:
            return await flow_writes.end_overdue(connection, now, due_at)

    @whole
    async def signal(self, workflow_id: str, node: str, payload: Any, at: float) -> Job:
        """Give a WAIT what it waits for; one that comes early is kept. Raises UnknownWorkflow, UnknownNode or
        JobEnded."""
        async with self._writing() as connection:
            job, released = await flow_writes.signal(connection, workflow_id, node, payload, at, lease=self._lease)
            noted = await self._note_queues(connection, (each.queue for each in released if each.queue))
        self._queues |= noted
        self._release(released)
        return job

    @whole
    async def retry_workflow(
        self, workflow_id: str, at: float, *, node: str | None = None, job: Job | None = None
    ) -> Workflow:
        """Run again what failed, or `node` and all that depends on it, with `job` in its place.

        Where nothing failed nothing is run. Raises UnknownWorkflow, UnknownNode, WorkflowNotEnded, or JobNotEnded for
        a node that would be run again and still runs.
        """
        async with self._writing() as connection:
            workflow, released = await flow_retry.retry(
                connection, workflow_id, at, node=node, edited=job, lease=self._lease
            )
            noted = await self._note_queues(connection, (each.queue for each in released if each.queue))
        self._queues |= noted
        self._release(released)
        return workflow

    @whole
    async def drop_old_feed(self, before: float, *, limit: int = 10_000) -> int:
        """Drop what was told before, and the log of workflows up to then; returns how many rows, which are at most
        about twice `limit`."""
        if not await self._ask(lambda connection: feed_entries.is_there(connection, before)):
            return 0
        async with self._writing() as connection:
            return await feed_entries.drop_before(connection, before, time.time(), limit)

    @property
    def _lease(self) -> float:
        return RELEASE_LEASE if self.on_release is not None else 0.0

    def _release(self, jobs: Sequence[Job]) -> None:
        if jobs and self.on_release is not None:
            self.on_release(jobs)

    async def workflow(self, workflow_id: str) -> Workflow | None:
        return await self._read(lambda connection: flows.find(connection, workflow_id))

    async def some_workflows(self, ids: Sequence[str]) -> dict[str, Workflow]:
        return await self._read(lambda connection: flows.find_some(connection, ids))

    async def workflow_view(self, workflow_id: str, *, nodes: bool = True) -> WorkflowView | None:
        """Also of jobs that plain Celery code sent, by the id of their root or group."""
        return await self._read(lambda connection: foreign.view(connection, workflow_id, nodes=nodes))

    async def workflows(
        self, *, state: State | None = None, cursor: str | None = None, limit: int = 50
    ) -> WorkflowPage:
        return await self._read(lambda connection: flows.page(connection, state, cursor, limit))

    async def workflow_result(self, workflow: Workflow) -> Any:
        """Its output, of one that succeeded. Raises NoSuchPart."""
        return await self._read(lambda connection: flows.result(connection, workflow))

    async def workflow_failure(self, workflow_id: str) -> Job | None:
        return await self._read(lambda connection: flows.failure(connection, workflow_id))

    async def node(self, workflow_id: str, name: str) -> Job | None:
        return await self._read(lambda connection: flows.node(connection, workflow_id, name))

    async def next_due(self) -> float:
        return await self._read(reads.next_due)

    async def job(self, job_id: str) -> Job | None:
        return await self._read(lambda connection: reads.find_job(connection, job_id))

    async def jobs(self, wanted: JobFilter, *, cursor: str | None = None, limit: int = 50) -> Page:
        return await self._read(lambda connection: reads.list_jobs(connection, wanted, cursor, limit))

    async def some_jobs(self, ids: Sequence[str]) -> dict[str, Job]:
        return await self._read(lambda connection: reads.find_jobs(connection, ids))

    async def oldest_jobs(self, wanted: JobFilter, *, limit: int) -> list[Job]:
        return await self._read(lambda connection: reads.oldest_jobs(connection, wanted, limit))

    async def count_jobs(self, wanted: JobFilter) -> int:
        return await self._read(lambda connection: reads.count_jobs(connection, wanted))

    async def group_jobs(self, wanted: JobFilter, *, limit: int = 100) -> list[Group]:
        return await self._read(lambda connection: reads.group_jobs(connection, wanted, limit))

    async def silent_jobs(self, before: float, *, limit: int) -> list[Job]:
        return await self._read(lambda connection: silent.silent_jobs(connection, before, limit))

    async def frontiers(self) -> dict[str, float]:
        return await self._read(silent.frontiers)

    async def expired_jobs(self, before: float, *, limit: int) -> list[Job]:
        return await self._read(lambda connection: silent.expired_jobs(connection, before, limit))

    async def expired_waits(self, now: float, *, limit: int) -> list[Job]:
        return await self._read(lambda connection: silent.expired_waits(connection, now, limit))

    async def cancelled_ids(self, *, limit: int) -> list[str]:
        return await self._read(lambda connection: reads.cancelled_ids(connection, limit))

    async def tasks(self) -> list[Task]:
        return await self._read(reads.list_tasks)

    async def catalogue_version(self) -> tuple[int, float]:
        return await self._read(reads.catalogue_version)

    async def workers(self) -> list[Node]:
        return await self._read(reads.list_workers)

    async def running(self) -> dict[str, list[Running]]:
        return await self._read(reads.running_jobs)

    async def queues(self) -> list[str]:
        return await self._read(reads.list_queues)

    async def count_open(self) -> dict[State, int]:
        return await self._read(reads.count_open)

    async def entries(self, job_id: str, after: Position = _START, *, limit: int = 1000) -> JobEntries:
        """What the job told behind this place, as far as it is kept; nothing of an unknown job."""
        return await self._read(lambda connection: feed.entries(connection, job_id, after, limit))

    async def workflow_feed(self, workflow_id: str, after: int = 0, *, limit: int = 500) -> list[FeedRow]:
        """The rows of its log behind this one, in the order in which they were committed. It begins when the workflow
        is submitted; the nodes that it is submitted with are in it from their first change on."""
        return await self._read(lambda connection: feed.workflow_rows(connection, workflow_id, after, limit))

    async def changed_jobs(self, wanted: JobFilter, since: float, *, limit: int) -> list[Job]:
        """As they are now, by `changed_at`, the oldest first; `since` is inclusive. A worker's clock tells when a job
        changed, and the recorder may be behind: ask for a little more than was missed."""
        return await self._read(lambda connection: feed.changed_jobs(connection, wanted, since, limit))

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        """What is changed by it is in the feed with its commit, and told after it."""
        async with super()._writing() as connection:
            trips.begin(connection)
            changes = feed_changes.begin(connection)
            yield connection
            feed_changes.write(connection, changes)
            await trips.finish(connection)
        if self.on_change is not None and (changes.jobs or changes.workflows):
            self.on_change(list(changes.jobs.values()), list(changes.workflows.values()))
