"""The client: submit jobs and wait for them, from any asyncio program.

    async with Dure() as dure:
        job = await dure.submit(add, 2, 3, queue="sums")
        print(await job.result(timeout=10))

A submission writes the row, then the message; it returns when the row is committed. Submissions that happen at once
share one transaction and one flight to the broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, TypeVarTuple, Unpack, cast, overload

from msgspec import structs

from dure.batch import Batcher, Closed, Full
from dure.client.again import Edits, Resent, resend, resend_many
from dure.client.catalogue import Catalogue
from dure.client.connect import connect
from dure.client.handle import JobHandle
from dure.client.leases import LEASE
from dure.client.once import idempotency
from dure.client.publisher import Publisher
from dure.client.submission import Draft, Submission, draft, plain
from dure.client.typing import TaskOf
from dure.client.waiting import Waiting
from dure.errors import IdempotencyConflict, LedgerUnavailable, LinkError, UnknownJob
from dure.job import Job, State
from dure.ledger import Group, Idempotency, JobFilter, Ledger, Receipt, Request
from dure.link import Link
from dure.options import OPTION_NAMES
from dure.settings import Settings, load

P = ParamSpec("P")
R = TypeVar("R")
Answer = TypeVar("Answer")
Positions = TypeVarTuple("Positions")

_OWN_NAMES = OPTION_NAMES | {"idempotency_key"}


class Dure:
    """A client on one event loop. `settings` default to what `DURE_*`, `.env` and `[tool.dure]` say.

    Entering the context opens the ledger (raises LedgerUnavailable) and begins to connect to the broker, which may
    be away: jobs are accepted all the same, and published when it is back.
    """

    def __init__(self, settings: Settings | None = None, **arguments: Any) -> None:
        self.settings = settings or load(**arguments)
        self.ledger = Ledger(
            self.settings.ledger, pool_size=self.settings.pool_size, timeout=self.settings.ledger_timeout
        )
        self.link: Link = connect(self.settings)
        self.catalogue = Catalogue(self.ledger)
        self.publisher = Publisher(self.link, self.ledger, self._is_application_queue)
        self.waiting = Waiting(self.link, self.ledger)
        self._rows: Batcher[Request, Receipt | IdempotencyConflict] = Batcher(self._commit)

    async def __aenter__(self) -> Self:
        await self.ledger.open()
        await self.link.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._rows.close()
        await self.publisher.close()
        await self.waiting.close()
        await self.link.close()
        await self.ledger.close()

    # The first form is checked in full; the second takes options beside positions; a name is not checked here but
    # against the schema that its worker announced.
    @overload
    async def submit(self, task: TaskOf[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    @overload
    async def submit(
        self, task: Callable[[Unpack[Positions]], R], /, *args: *Positions, **options: Any
    ) -> JobHandle[R]: ...
    @overload
    async def submit(self, task: str, /, *args: Any, force: bool = False, **kwargs: Any) -> JobHandle[Any]: ...
    async def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:  # type: ignore[misc]
        """Submit one job; returns when its row is committed.

        `task` is a Celery task or the name of one; a name that no worker has announced needs `force=True`. The
        options (`queue`, `priority`, `delay`, `eta`, `expires`, `retries`, `time_limit`, `tags`, `unique_key`,
        `unique_until`, `unique_for`) and `idempotency_key` stand among the task's own arguments; for a task that has an
        argument so named, use `submit_many` with a Submission. Where another job holds the unique key, that job is
        returned; where the idempotency key was used before, the job of that time.
        Raises UnknownTask, InvalidSubmission, IdempotencyConflict or LedgerUnavailable; then nothing was submitted.
        """
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
        outcome = await self._in_time(self._put(_request(drafts, key)))
        if isinstance(outcome, IdempotencyConflict):
            raise outcome
        return outcome

    async def cancel(self, job_id: str) -> Job:
        """See that the job does not run, or ends if it runs and its pool can end it; returns the record.

        A job that nobody has begun is REVOKED at once. One that runs stays STARTED, with `cancel_requested_at`, until
        its worker has ended it; threads can't be ended, there it runs on. Cancelling twice changes nothing. Raises
        UnknownJob, or JobEnded for a job that has ended otherwise.
        """
        now = round(time.time(), 6)
        cancelling = self.ledger.request_cancel(job_id, now, due_at=now + LEASE)
        job = await self._in_time(cancelling) if _is_id(job_id) else None
        if job is None:
            raise UnknownJob(job_id)
        if job.cancel_requested_at == now:
            with suppress(LinkError, LedgerUnavailable):  # else the relay tells the broker
                await self.link.revoke([job_id], terminate=True)
                await self._in_time(self.ledger.mark_revoked([job_id]))
        return job

    async def retry(self, job_id: str, edits: Edits | None = None) -> JobHandle[Any]:
        """Send a job that has ended again, as a new job with `retry_of`; where that was done already and the new job is
        still open, it is returned.

        Raises UnknownJob, JobNotEnded, or InvalidSubmission where the edited arguments do not fit or the job's own
        are not known.
        """
        (resent,) = await resend(self, [await self.job(job_id)], edits or Edits())
        return JobHandle(self, resent)

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
        not sent again yet; `rate` a second, the later ones as scheduled jobs. Raises InvalidSubmission.
        """
        return await resend_many(self, wanted, edits or Edits(), rate=rate, limit=limit, dry_run=dry_run)

    async def dead(self, wanted: JobFilter | None = None, *, limit: int = 100) -> list[Group]:
        """Dead letters that were not sent again, grouped by how they ended; the largest group first."""
        wanted = structs.replace(wanted or JobFilter(), dead=True, retried=False)
        return await self.ledger.group_jobs(wanted, limit=limit)

    async def job(self, job_id: str) -> Job:
        """The whole record. Raises UnknownJob."""
        job = await self.ledger.job(job_id) if _is_id(job_id) else None
        if job is None:
            raise UnknownJob(job_id)
        return job

    async def handle(self, job_id: str) -> JobHandle[Any]:
        """A handle on a job that was submitted before. Raises UnknownJob."""
        return JobHandle(self, await self.job(job_id))

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

    async def _put(self, request: Request) -> Receipt | IdempotencyConflict:
        try:
            return await self._rows.put(request)
        except (Full, Closed) as exc:
            raise LedgerUnavailable(str(exc)) from exc

    async def _in_time(self, write: Awaitable[Answer]) -> Answer:
        """Nobody waits without end for a database that does not answer."""
        timeout = self.settings.ledger_timeout
        try:
            async with asyncio.timeout(timeout):
                return await write
        except TimeoutError:
            raise LedgerUnavailable(f"no answer in {timeout:g} s") from None

    async def _commit(self, requests: Sequence[Request]) -> Sequence[Receipt | IdempotencyConflict]:
        now = time.time()
        requests = _due_from(requests, now + self._grace())
        if not all(request.is_plain for request in requests):
            outcomes = await self.ledger.accept_once(requests, now)
        else:
            await self.ledger.accept([entry for request in requests for entry in request.jobs])
            outcomes = [_all_new(request) for request in requests]
        made = [job for o in outcomes if isinstance(o, Receipt) for job in o.jobs if job.id in o.created]
        self.publisher.start([job for job in made if job.state is State.ACCEPTED])
        return outcomes

    def _grace(self) -> float:
        """Seconds from the commit in which this process publishes; a relay does it afterwards."""
        return LEASE if self.link.connected and self.publisher.room else 0.0


def _request(drafts: Sequence[Draft], key: Idempotency | None) -> Request:
    return Request(
        jobs=tuple((each.job, 0.0) for each in drafts),
        unique={each.job.id: each.unique for each in drafts if each.unique is not None},
        idempotency=key,
    )


def _due_from(requests: Sequence[Request], at: float) -> list[Request]:
    """Due for the relay from `at` on, or when they are scheduled; reckoned at the commit, for they may have waited."""
    return [structs.replace(each, jobs=tuple((job, _due_at(job, at)) for job, _ in each.jobs)) for each in requests]


def _all_new(request: Request) -> Receipt:
    jobs = tuple(job for job, _ in request.jobs)
    return Receipt(jobs=jobs, created=frozenset(job.id for job in jobs))


def _due_at(job: Job, otherwise: float) -> float:
    return job.eta if job.state is State.SCHEDULED and job.eta is not None else otherwise


def _queue_of(task: Any) -> dict[str, str]:
    """The queue that a Celery task names itself; its application's routes come with the announcement."""
    queue = getattr(task, "queue", None)
    return {"queue": queue} if isinstance(queue, str) else {}


def _is_id(job_id: str) -> bool:
    return 0 < len(job_id) <= 255 and job_id.isprintable()
