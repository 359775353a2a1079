"""The ledger: jobs, tasks, workers and queues in SQL, on SQLite or PostgreSQL.

Each call is one transaction. A database that is away, locked or full raises LedgerUnavailable, and nothing of the
call is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.errors import LedgerUnavailable
from dure.event import JobEvent
from dure.job import Job, State
from dure.ledger import advance, flow_retry, flow_writes, flows, foreign, keys, reads, silent, writes
from dure.ledger.engine import connect
from dure.ledger.flow_writes import Cancelled
from dure.ledger.flows import WorkflowPage, WorkflowView
from dure.ledger.keys import Outcome, Request
from dure.ledger.migrate import migrate
from dure.ledger.reads import Group, JobFilter, Page
from dure.node import Node, Running
from dure.task import Task
from dure.wire import Announcement, Heartbeat
from dure.workflow import Workflow

P = ParamSpec("P")
Answer = TypeVar("Answer")

RELEASE_LEASE = 4.0


def _whole(
    write: Callable[Concatenate[Ledger, P], Coroutine[Any, Any, Answer]],
) -> Callable[Concatenate[Ledger, P], Coroutine[Any, Any, Answer]]:
    """Carry a transaction to its end though its caller goes away: cut off in the middle, it would keep its locks."""

    @wraps(write)
    async def carried(self: Ledger, /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        return await asyncio.shield(self._begin(write(self, *args, **kwargs)))

    return carried


class Ledger:
    """One database. `open` brings it to the present schema; `url` is `sqlite:///…` or `postgresql://…`.

    A question that has no answer after `timeout` seconds raises LedgerUnavailable; a write goes on until the database
    answers or the connection is lost, also where its caller has gone.
    """

    def __init__(self, url: str, *, pool_size: int = 8, timeout: float = 10.0) -> None:
        self._engines = connect(url, pool_size)
        self._timeout = timeout
        self._queues: set[str] = set()
        self._under_way: set[asyncio.Task[Any]] = set()
        self.on_release: Callable[[Sequence[Job]], None] | None = None
        """Is given the nodes that a transaction has begun, to publish them; who has none leaves them to the relay."""

    async def open(self) -> None:
        async with _translated():
            await migrate(self._engines.write)

    async def close(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._timeout)
        await self._engines.dispose()

    def _begin(self, call: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
        task = asyncio.create_task(call)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen, though its caller may have gone

    async def ping(self) -> None:
        await self._read(lambda connection: connection.execute(text("SELECT 1")))

    @_whole
    async def accept(self, batch: Sequence[tuple[Job, float]]) -> None:
        """Insert new jobs, all or none. Each comes with the time from which the relay may publish it."""
        async with self._writing() as connection:
            await writes.insert_jobs(connection, batch)
            noted = await self._note_queues(connection, (job.queue for job, _ in batch if job.queue))
        self._queues |= noted

    @_whole
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

    @_whole
    async def renew_due(self, ids: Sequence[str], until: float) -> None:
        """Keep rows that are being published from becoming due before `until`."""
        async with self._writing() as connection:
            await writes.renew_due(connection, ids, until)

    @_whole
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

    @_whole
    async def mark_revoked(self, ids: Sequence[str]) -> None:
        async with self._writing() as connection:
            await writes.mark_revoked(connection, ids)

    @_whole
    async def mark_checked(self, ids: Sequence[str], at: float) -> None:
        async with self._writing() as connection:
            await silent.mark_checked(connection, ids, at)

    @_whole
    async def publish_again(self, ids: Sequence[str], at: float, *, most: int) -> set[str]:
        """Give these jobs to the relay anew, as far as nobody has begun them; each at most `most` times."""
        async with self._writing() as connection:
            return await silent.publish_again(connection, ids, at, most)

    @_whole
    async def drop_expired_keys(self, now: float, *, limit: int = 10_000) -> int:
        async with self._writing() as connection:
            return await keys.drop_expired(connection, now, limit)

    @_whole
    async def fill_arguments(self, told: Mapping[str, tuple[list[Any], dict[str, Any]]]) -> None:
        """What a dead letter called its task with, for jobs whose arguments nobody knew."""
        async with self._writing() as connection:
            await writes.fill_arguments(connection, told)

    @_whole
    async def mark_queued(self, ids: Sequence[str], at: float) -> None:
        async with self._writing_once() as connection:
            await writes.mark_queued(connection, ids, at)

    @_whole
    async def fail_accepted(self, job_id: str, reason: str, message: str, at: float) -> None:
        async with self._writing() as connection:
            await advance.lock_of(connection, [job_id])
            ended = await writes.fail_accepted(connection, job_id, reason, message, at)
            released = await advance.pass_on(connection, ended, at, lease=self._lease)
        self._release(released)

    @_whole
    async def claim_due(self, now: float, *, lease: float, limit: int) -> list[Job]:
        async with self._writing() as connection:
            return await writes.claim_due(connection, now, lease, limit)

    @_whole
    async def record(
        self,
        events: Sequence[JobEvent],
        announcements: Sequence[Announcement] = (),
        heartbeats: Sequence[Heartbeat] = (),
        *,
        now: float | None = None,
    ) -> list[Job]:
        """Fold a batch of what happened, and pass on the ends of nodes; returns the jobs of the batch that changed."""
        now = time.time() if now is None else now
        while True:
            try:
                return await self._record(events, announcements, heartbeats, now)
            except writes.Strange as exc:
                async with self._writing() as connection:
                    await writes.insert_unknown(connection, [event for event in events if event.job_id in exc.ids])

    async def _record(
        self,
        events: Sequence[JobEvent],
        announcements: Sequence[Announcement],
        heartbeats: Sequence[Heartbeat],
        now: float,
    ) -> list[Job]:
        async with self._writing() as connection:
            await advance.lock_of(connection, {event.job_id for event in events})
            changed = await writes.fold_events(connection, events)
            released = await advance.pass_on(connection, changed, now, lease=self._lease)
            await writes.upsert_workers(connection, [told.node for told in announcements], heartbeats)
            await writes.upsert_tasks(connection, [task for told in announcements for task in told.tasks])
            queues = {queue for told in announcements for queue in told.node.queues}
            noted = await self._note_queues(
                connection, queues | {job.queue for job in (*changed, *released) if job.queue}
            )
        self._queues |= noted
        self._release(released)
        return changed

    async def _note_queues(self, connection: AsyncConnection, names: Iterable[str]) -> set[str]:
        """Write those not known yet, so that most batches write none; they are known once committed."""
        unseen = set(names) - self._queues
        if unseen:
            await writes.insert_queues(connection, unseen)
        return unseen

    @_whole
    async def cancel_workflow(self, workflow_id: str, at: float, *, due_at: float) -> Cancelled | None:
        """Revoke the nodes that nobody has begun, ask for the end of those that run; raises WorkflowEnded.

        The workflow ends when they have. From `due_at` on the relay may tell the broker.
        """
        async with self._writing() as connection:
            return await flow_writes.cancel(connection, workflow_id, at, due_at)

    @_whole
    async def end_overdue(self, now: float, *, due_at: float) -> list[Cancelled]:
        """End some workflows whose time is over, and their nodes as if they were cancelled."""
        if not await self._ask(lambda connection: flow_writes.overdue(connection, now)):
            return []
        async with self._writing() as connection:
            return await flow_writes.end_overdue(connection, now, due_at)

    @_whole
    async def signal(self, workflow_id: str, node: str, payload: Any, at: float) -> Job:
        """Give a WAIT what it waits for; one that comes early is kept. Raises UnknownWorkflow, UnknownNode or
        JobEnded."""
        async with self._writing() as connection:
            job, released = await flow_writes.signal(connection, workflow_id, node, payload, at, lease=self._lease)
            noted = await self._note_queues(connection, (each.queue for each in released if each.queue))
        self._queues |= noted
        self._release(released)
        return job

    @_whole
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

    async def _read(self, ask: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
        asking = self._begin(self._ask(ask))
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(asking)
        except TimeoutError:
            raise LedgerUnavailable(f"no answer in {self._timeout:g} s") from None
        finally:
            asking.cancel()  # not waited for: on a database that hangs the driver needs ten seconds more to give up

    async def _ask(self, ask: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
        async with _translated(), self._engines.read.connect() as connection:
            return await ask(connection)

    @asynccontextmanager
    async def _writing_once(self) -> AsyncIterator[AsyncConnection]:
        """For one statement."""
        async with _translated(), self._engines.one.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        strange = None
        async with _translated(), self._engines.write.begin() as connection:
            try:
                yield connection
            except writes.Strange as exc:
                strange = exc  # nothing is written yet; psycopg forgets what it has prepared when a transaction fails
        if strange is not None:
            raise strange


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, InternalError, PoolTimeout) as exc:
        raise LedgerUnavailable(_first_line(exc)) from exc
    except DBAPIError as exc:
        # SQLite's plain DatabaseError says that the file is none, or is broken.
        if exc.connection_invalidated or type(exc) is DatabaseError:
            raise LedgerUnavailable(_first_line(exc)) from exc
        raise


def _first_line(exc: Exception) -> str:
    cause = exc.orig if isinstance(exc, DBAPIError) and exc.orig else exc
    return str(cause).partition("\n")[0] or type(cause).__name__
