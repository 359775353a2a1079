"""The client: submit jobs and wait for them, from any asyncio program.

    async with Dure() as dure:
        job = await dure.submit(add, 2, 3, queue="sums")
        print(await job.result(timeout=10))
        workflow = await dure.submit(chain(add.s(2, 3), add.s(10)))
        print(await workflow.result(timeout=10))

A submission writes the row, then the message; it returns when the row is committed. Submissions that happen at once
share one transaction and one flight to the broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, TypeVarTuple, Unpack, cast, overload

from msgspec import structs

from dure.batch import Batcher, Closed, Full
from dure.client.again import Edits, Resent
from dure.client.catalogue import Catalogue
from dure.client.connect import connect
from dure.client.flow_handle import WorkflowHandle
from dure.client.flow_waiting import FlowWaiting
from dure.client.flows import FlowDraft, draft_flow, is_flow, is_signature, read
from dure.client.handle import JobHandle
from dure.client.leases import LEASE
from dure.client.once import idempotency
from dure.client.publisher import Publisher
from dure.client.requests import all_new, due, flow_request, jobs_request, weight
from dure.client.resend import resend, resend_many
from dure.client.submission import Draft, Submission, as_json, draft, plain
from dure.client.telling import Telling
from dure.client.waiting import Waiting
from dure.client.watching import Watching, is_id, read_feed
from dure.errors import IdempotencyConflict, LedgerUnavailable, LinkError, UnknownJob, UnknownNode, UnknownWorkflow
from dure.feed import FeedEvent
from dure.job import Job, State
from dure.ledger import Group, Idempotency, JobFilter, Ledger, Limits, Receipt, Request, WorkflowView
from dure.link import Link
from dure.options import OPTION_NAMES
from dure.settings import Settings, load
from dure.typing import CanvasOf, FlowOptions, SignatureOf, TaskOf
from dure.workflow import Workflow

if TYPE_CHECKING:
    from dure.workflows.builder import DAG

P = ParamSpec("P")
R = TypeVar("R")
Answer = TypeVar("Answer")
Positions = TypeVarTuple("Positions")

_REVOKED_AT_ONCE = 1000
_OWN_NAMES = OPTION_NAMES | {"idempotency_key"}


class Dure:
    """A client on one event loop. `settings` default to what `DURE_*`, `.env` and `[tool.dure]` say.

    Entering the context opens the ledger (raises LedgerUnavailable) and begins to connect to the broker, which may
    be away: jobs are accepted all the same, and published when it is back.
    """

    def __init__(self, settings: Settings | None = None, **arguments: Any) -> None:
        self.settings = settings or load(**arguments)
        self.ledger = Ledger(
            self.settings.ledger,
            pool_size=self.settings.pool_size,
            timeout=self.settings.ledger_timeout,
            kept=Limits(entries=self.settings.feed_entries, size=self.settings.feed_bytes),
        )
        self.link: Link = connect(self.settings)
        self.catalogue = Catalogue(self.ledger)
        self.publisher = Publisher(self.link, self.ledger, self._is_application_queue)
        self.waiting = Waiting(self.link, self.ledger)
        self.watching = Watching(self.link, self.ledger)
        self.flow_waiting = FlowWaiting(self.ledger, self.watching)
        self.ledger.on_release = self._publish
        self.telling = Telling(self.link, self.ledger)
        self.ledger.on_change = self.telling.changed
        self._rows: Batcher[Request, Receipt | IdempotencyConflict] = Batcher(self._commit, weigh=weight)

    async def __aenter__(self) -> Self:
        await self.ledger.open()
        await self.link.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._rows.close()
        await self.publisher.close()
        await self.flow_waiting.close()
        await self.waiting.close()
        await self.watching.close()
        await self.telling.close()
        await self.link.close()
        await self.ledger.close()

    # Of a task itself arguments are checked in full, or options stand beside positions; a name is not checked here but
    # against the schema that its worker announced.
    @overload
    async def submit(self, workflow: CanvasOf | DAG, /, **options: Unpack[FlowOptions]) -> WorkflowHandle[Any]: ...
    @overload
    async def submit(self, signature: SignatureOf, /, **options: Any) -> JobHandle[Any] | WorkflowHandle[Any]: ...
    @overload
    async def submit(self, task: TaskOf[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    @overload
    async def submit(
        self, task: Callable[[Unpack[Positions]], R], /, *args: *Positions, **options: Any
    ) -> JobHandle[R]: ...
    @overload
    async def submit(self, task: str, /, *args: Any, force: bool = False, **kwargs: Any) -> JobHandle[Any]: ...
    async def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> JobHandle[Any] | WorkflowHandle[Any]:  # type: ignore[misc]
        """Submit one job or one workflow; returns when its rows are committed.

        `task` is a Celery task or the name of one; a name that no worker has announced needs `force=True`. The
        options (`queue`, `priority`, `delay`, `eta`, `expires`, `retries`, `time_limit`, `tags`, `unique_key`,
        `unique_until`, `unique_for`) and `idempotency_key` stand among the task's own arguments; for a task that has an
        argument so named, use `submit_many` with a Submission. Where another job holds the unique key, that job is
        returned; where the idempotency key was used before, the job or the workflow of that time.

        A workflow is one of Celery's (`chain`, `group`, `chord`, `|`, `.map`, a signature with links) or a DAG; its
        options are `name`, `timeout` in seconds for the whole, and `idempotency_key`. A signature without links is
        one job.
        Raises UnknownTask, InvalidSubmission, IdempotencyConflict or LedgerUnavailable; then nothing was submitted.
        """
        if is_flow(task):
            return await self._submit_flow(task, args, kwargs)
        key = kwargs.get("idempotency_key")
        return (await self.submit_many([self._submission(task, args, kwargs)], idempotency_key=key))[0]

    async def submit_many(
        self, submissions: Iterable[Submission], *, idempotency_key: str | None = None
    ) -> list[JobHandle[Any]]:
        """Submit jobs as one: all rows are committed, or none. Raises as `submit` does."""
        written = [plain(submission) for submission in submissions]
        drafts = [await self.draft(submission) for submission in written]
        receipt = await self.accept(drafts, idempotency(idempotency_key, written, self.settings.idempotency_ttl))
        return [JobHandle(self, job) for job in receipt.jobs]

    async def draft(self, submission: Submission) -> Draft:
        """A job that is checked and not accepted yet. Raises UnknownTask or InvalidSubmission."""
        return await draft(submission, self.catalogue, self.settings.default_queue)

    async def accept(self, drafts: Sequence[Draft], key: Idempotency | None = None) -> Receipt:
        """Commit the rows, then publish in the background what is not scheduled.

        Raises IdempotencyConflict, or LedgerUnavailable; after a commit that had no answer in time the rows may be
        there all the same.
        """
        if not drafts:
            return Receipt(jobs=(), created=frozenset())
        return await self._accept(jobs_request(drafts, key))

    async def submit_workflow(
        self, spec: Mapping[str, Any], *, idempotency_key: str | None = None, force: bool = False
    ) -> WorkflowHandle[Any]:
        """Submit a workflow in the form in which HTTP takes it, such as `{"chain": [{"task": "shop.add", …}, …]}`.

        All of its nodes are committed, or none. Raises InvalidSubmission with every wrong place, IdempotencyConflict
        or LedgerUnavailable. `force` lets tasks pass that no worker has announced.
        """
        draft = await self.draft_workflow(as_json(spec), force=force)
        receipt = await self.accept_workflow(draft, idempotency(idempotency_key, draft, self.settings.idempotency_ttl))
        assert receipt.workflow is not None  # noqa: S101 - an accepted workflow has its record
        return WorkflowHandle(self, receipt.workflow)

    async def draft_workflow(self, value: Any, *, force: bool = False) -> FlowDraft:
        """A workflow of JSON that is checked as a whole and not accepted yet. Raises InvalidSubmission."""
        return await draft_flow(value, self.catalogue, self.settings.default_queue, force=force)

    async def accept_workflow(self, draft: FlowDraft, key: Idempotency | None = None) -> Receipt:
        """Commit its rows, then publish in the background what needs nothing. Raises as `accept` does."""
        return await self._accept(flow_request(draft, key))

    async def cancel(self, job_id: str) -> Job:
        """See that the job does not run, or ends if it runs and its pool can end it; returns the record.

        A job that nobody has begun is REVOKED at once. One that runs stays STARTED, with `cancel_requested_at`, until
        its worker has ended it; in threads it runs on until its task calls `dure.emit` or `dure.progress`. Cancelling
        twice changes nothing. Raises UnknownJob, or JobEnded for a job that has ended otherwise.
        """
        if not is_id(job_id):
            raise UnknownJob(job_id)
        now = round(time.time(), 6)
        job = await self.in_time(self.ledger.request_cancel(job_id, now, due_at=now + LEASE))
        if job is None:
            raise UnknownJob(job_id)
        if job.cancel_requested_at == now:
            await self._revoke([job_id])
        return job

    async def cancel_workflow(self, workflow_id: str) -> Workflow:
        """Cancel every job of it that has not ended, each as `cancel` does; returns the record.

        It is REVOKED at once where none of them runs, else when they have ended. Cancelling twice changes nothing.
        Raises UnknownWorkflow, or WorkflowEnded where it has ended otherwise.
        """
        if not is_id(workflow_id):
            raise UnknownWorkflow(workflow_id)
        now = round(time.time(), 6)
        cancelled = await self.in_time(self.ledger.cancel_workflow(workflow_id, now, due_at=now + LEASE))
        if cancelled is None:
            raise UnknownWorkflow(workflow_id)
        await self._revoke(cancelled.told)
        return cancelled.workflow

    async def retry(self, job_id: str, edits: Edits | None = None) -> JobHandle[Any]:
        """Send a job that has ended again, as a new job with `retry_of`; where that was done already and the new job is
        still open, it is returned. A node is run again in its workflow, with all that depends on it.

        Raises UnknownJob, JobNotEnded, or InvalidSubmission where the edited arguments do not fit or the job's own
        are not known; of a node also UnknownNode, where a later run of its workflow did without it.
        """
        return JobHandle(self, await resend(self, await self.job(job_id), edits or Edits()))

    async def retry_workflow(self, workflow_id: str, node: str | None = None) -> Workflow:
        """Run what failed again in its place, or `node` and all that depends on it; what else has ended is kept.

        Raises UnknownWorkflow, UnknownNode, WorkflowNotEnded, or JobNotEnded for a node that runs.
        """
        if not is_id(workflow_id):
            raise UnknownWorkflow(workflow_id)
        if node is not None and not node.isprintable():  # PostgreSQL cannot be asked for a NUL
            raise UnknownNode(workflow_id, node)
        return await self.in_time(self.ledger.retry_workflow(workflow_id, round(time.time(), 6), node=node))

    async def signal(self, workflow_id: str, node: str, payload: Any = None) -> Job:
        """Give a node that waits for a signal its result; one that comes early is kept. Returns the node's job.

        Raises UnknownWorkflow, UnknownNode, or JobEnded where it has its signal already.
        """
        if not is_id(workflow_id):
            raise UnknownWorkflow(workflow_id)
        if not node.isprintable():
            raise UnknownNode(workflow_id, node)
        payload = as_json(payload, ("payload",))
        return await self.in_time(self.ledger.signal(workflow_id, node, payload, round(time.time(), 6)))

    async def retry_many(
        self,
        wanted: JobFilter,
        edits: Edits | None = None,
        *,
        rate: float | None = None,
        limit: int = 1000,
        dry_run: bool = False,
    ) -> Resent:
        """Send the oldest `limit` jobs again that match, have ended FAILURE (or the state that `wanted` names) and were
        not sent again yet; `rate` a second, the later ones as scheduled jobs. Nodes are run again in their workflows.
        Raises InvalidSubmission.
        """
        return await resend_many(self, wanted, edits or Edits(), rate=rate, limit=limit, dry_run=dry_run)

    async def dead(self, wanted: JobFilter | None = None, *, limit: int = 100) -> list[Group]:
        """Dead letters that were not sent again, grouped by how they ended; the largest group first."""
        wanted = structs.replace(wanted or JobFilter(), dead=True, retried=False)
        return await self.ledger.group_jobs(wanted, limit=limit)

    async def job(self, job_id: str) -> Job:
        """The whole record. Raises UnknownJob."""
        job = await self.ledger.job(job_id) if is_id(job_id) else None
        if job is None:
            raise UnknownJob(job_id)
        return job

    async def handle(self, job_id: str) -> JobHandle[Any]:
        """A handle on a job that was submitted before. Raises UnknownJob."""
        return JobHandle(self, await self.job(job_id))

    async def workflow(self, workflow_id: str, *, nodes: bool = True) -> WorkflowView:
        """The record of a workflow with its nodes, also of one that plain Celery code sent, by the id of its root or
        group. Raises UnknownWorkflow."""
        view = await self.ledger.workflow_view(workflow_id, nodes=nodes) if is_id(workflow_id) else None
        if view is None:
            raise UnknownWorkflow(workflow_id)
        return view

    async def workflow_handle(self, workflow_id: str) -> WorkflowHandle[Any]:
        """A handle on a workflow that was submitted before. Raises UnknownWorkflow."""
        workflow = await self.ledger.workflow(workflow_id) if is_id(workflow_id) else None
        return WorkflowHandle(self, workflow or (await self.workflow(workflow_id, nodes=False)).workflow)

    def job_events(self, job_id: str, *, after: str | None = None) -> AsyncIterator[FeedEvent]:
        """What the job told and what happened to it, then what it tells and what happens; `result` is the last event.

        An event's `id`, given as `after`, goes on behind it, here or in another process. The first step raises
        UnknownJob, InvalidCursor or LedgerUnavailable.
        """
        return read_feed(lambda: self.watching.open_job(job_id, after))

    def workflow_events(self, workflow_id: str, *, after: str | None = None) -> AsyncIterator[FeedEvent]:
        """The same of a workflow and all of its nodes. The first step raises UnknownWorkflow, InvalidCursor or
        LedgerUnavailable."""
        return read_feed(lambda: self.watching.open_workflow(workflow_id, after))

    def events(self, wanted: JobFilter | None = None, *, after: str | None = None) -> AsyncIterator[FeedEvent]:
        """What happens to the jobs of a task, a queue or a tag, from now on and without an end.

        With `after` first those that changed since, as they are now, each at least once. The first step raises
        InvalidCursor, or InvalidSubmission where something else is wanted.
        """
        return read_feed(lambda: self.watching.open_filter(wanted or JobFilter(), after))

    def _is_application_queue(self, name: str) -> bool:
        return name == self.settings.default_queue or self.catalogue.defines(name)

    def _submission(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Submission:
        by_name = isinstance(task, str)
        force = bool(kwargs.get("force", False)) if by_name else True
        own = {k: v for k, v in kwargs.items() if k not in _OWN_NAMES and not (by_name and k == "force")}
        options = {k: v for k, v in kwargs.items() if k in OPTION_NAMES}
        if not by_name and "queue" not in options:
            options |= _queue_of(task)
        return Submission(
            task=task if by_name else cast(str, task.name),
            args=args,
            kwargs=own,
            options=options,
            force=force,
        )

    async def _submit_flow(
        self, thing: Any, args: Sequence[Any], options: dict[str, Any]
    ) -> JobHandle[Any] | WorkflowHandle[Any]:
        key = options.pop("idempotency_key", None)
        force = options.pop("force", is_signature(thing))  # who has the task itself need not wait for its worker
        asked = read(thing, args, options)
        if isinstance(asked, Submission):
            return (await self.submit_many([asked], idempotency_key=key))[0]
        return await self.submit_workflow(asked, idempotency_key=key, force=force)

    def _publish(self, jobs: Sequence[Job]) -> None:
        self.publisher.start(jobs)

    async def _accept(self, request: Request) -> Receipt:
        outcome = await self.in_time(self._put(request))
        if isinstance(outcome, IdempotencyConflict):
            raise outcome
        return outcome

    async def _revoke(self, ids: Sequence[str]) -> None:
        with suppress(LinkError, LedgerUnavailable):  # else the relay tells the broker
            for start in range(0, len(ids), _REVOKED_AT_ONCE):
                portion = ids[start : start + _REVOKED_AT_ONCE]
                await self.link.revoke(portion, terminate=True)
                await self.in_time(self.ledger.mark_revoked(portion))

    async def _put(self, request: Request) -> Receipt | IdempotencyConflict:
        try:
            return await self._rows.put(request)
        except (Full, Closed) as exc:
            raise LedgerUnavailable(str(exc)) from exc

    async def in_time(self, write: Awaitable[Answer]) -> Answer:
        """Nobody waits without end for a database that does not answer."""
        timeout = self.settings.ledger_timeout
        try:
            async with asyncio.timeout(timeout):
                return await write
        except TimeoutError:
            raise LedgerUnavailable(f"no answer in {timeout:g} s") from None

    async def _commit(self, requests: Sequence[Request]) -> Sequence[Receipt | IdempotencyConflict]:
        now = time.time()
        requests = due(requests, now, self.publisher.room if self.link.connected else 0)
        if not all(request.is_plain for request in requests):
            outcomes = await self.ledger.accept_once(requests, now)
        else:
            await self.ledger.accept([entry for request in requests for entry in request.jobs])
            outcomes = [all_new(request) for request in requests]
        made = [job for o in outcomes if isinstance(o, Receipt) for job in o.jobs if job.id in o.created]
        self._publish([job for job in made if job.state is State.ACCEPTED])
        return outcomes


def _queue_of(task: Any) -> dict[str, str]:
    """The queue that a Celery task names itself; its application's routes come with the announcement."""
    queue = getattr(task, "queue", None)
    return {"queue": queue} if isinstance(queue, str) else {}
