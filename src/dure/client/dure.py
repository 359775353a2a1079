"""The client: submit jobs and wait for them, from any asyncio program.

    async with Dure() as dure:
        job = await dure.submit(add, 2, 3, queue="sums")
        print(await job.result(timeout=10))

A submission writes the row, then the message; it returns when the row is committed. Submissions that happen at once
share one transaction and one flight to the broker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, TypeVarTuple, Unpack, cast, overload

from dure.batch import Batcher, Closed, Full
from dure.client.catalogue import Catalogue
from dure.client.connect import connect
from dure.client.handle import JobHandle
from dure.client.options import OPTION_NAMES
from dure.client.publisher import Publisher
from dure.client.submission import Submission, make_job, plain
from dure.client.typing import TaskOf
from dure.client.waiting import Waiting
from dure.errors import LedgerUnavailable, UnknownJob
from dure.job import Job, State
from dure.ledger import Ledger
from dure.link import Link
from dure.settings import Settings, load

P = ParamSpec("P")
R = TypeVar("R")
Positions = TypeVarTuple("Positions")

# From the commit on the submitting process publishes; this much later the relay does, should it have died.
_PUBLISH_GRACE = 10.0


class Dure:
    """A client on one event loop. `settings` default to what `DURE_*`, `.env` and `[tool.dure]` say.

    Entering the context opens the ledger (raises LedgerUnavailable) and begins to connect to the broker, which may
    be away: jobs are accepted all the same, and published when it is back.
    """

    def __init__(self, settings: Settings | None = None, **arguments: Any) -> None:
        self.settings = settings or load(**arguments)
        self.ledger = Ledger(self.settings.ledger, pool_size=self.settings.pool_size)
        self.link: Link = connect(self.settings)
        self.catalogue = Catalogue(self.ledger)
        self.publisher = Publisher(self.link, self.ledger, self._is_application_queue)
        self.waiting = Waiting(self.link, self.ledger)
        self._rows: Batcher[Sequence[Job], None] = Batcher(self._commit)

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
        options (`queue`, `priority`, `delay`, `eta`, `expires`, `retries`, `time_limit`, `tags`) stand among the
        task's own arguments; for a task that has an argument so named, use `submit_many` with a Submission.
        Raises UnknownTask, InvalidSubmission or LedgerUnavailable; then nothing was submitted.
        """
        return (await self.submit_many([self._submission(task, args, kwargs)]))[0]

    async def submit_many(self, submissions: Iterable[Submission]) -> list[JobHandle[Any]]:
        """Submit jobs as one: all rows are committed, or none. Raises as `submit` does."""
        written = [plain(submission) for submission in submissions]
        jobs = [await make_job(submission, self.catalogue, self.settings.default_queue) for submission in written]
        await self.accept(jobs)
        return [JobHandle(self, job) for job in jobs]

    async def accept(self, jobs: Sequence[Job]) -> None:
        """Commit the rows, then publish in the background what is not scheduled."""
        if not jobs:
            return
        try:
            await self._rows.put(jobs)
        except (Full, Closed) as exc:
            raise LedgerUnavailable(str(exc)) from exc

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
        own = {k: v for k, v in kwargs.items() if k not in OPTION_NAMES and not (by_name and k == "force")}
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

    async def _commit(self, batches: Sequence[Sequence[Job]]) -> Sequence[None]:
        now = time.time()
        jobs = [job for batch in batches for job in batch]
        await self.ledger.accept([(job, _due_at(job, now)) for job in jobs])
        self.publisher.start([job for job in jobs if job.state is State.ACCEPTED])
        return [None] * len(batches)


def _due_at(job: Job, now: float) -> float:
    return job.eta if job.state is State.SCHEDULED and job.eta is not None else now + _PUBLISH_GRACE


def _queue_of(task: Any) -> dict[str, str]:
    """The queue that a Celery task names itself; its application's routes come with the announcement."""
    queue = getattr(task, "queue", None)
    return {"queue": queue} if isinstance(queue, str) else {}


def _is_id(job_id: str) -> bool:
    return 0 < len(job_id) <= 255 and job_id.isprintable()
