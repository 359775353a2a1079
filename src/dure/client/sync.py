"""The client for programs without asyncio: Flask views, scripts, other threads.

    with SyncDure() as dure:
        job = dure.submit(add, 2, 3, queue="sums")
        print(job.result(timeout=10))

One asyncio client runs on a loop in a thread of its own, and every call is carried out there. Calls from several
threads at once therefore share transactions and flights to the broker, as they do on one loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, TypeVarTuple, Unpack, overload

from anyio.from_thread import BlockingPortal, start_blocking_portal

from dure.client.again import Edits, Resent
from dure.client.dure import Dure
from dure.client.handle import JobHandle
from dure.client.submission import Submission
from dure.client.typing import TaskOf
from dure.job import Job
from dure.ledger import Group, JobFilter
from dure.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Answer = TypeVar("Answer")
Positions = TypeVarTuple("Positions")


class SyncJobHandle(Generic[R_co]):
    """A submitted job, as `JobHandle` is, with calls that wait."""

    def __init__(self, portal: BlockingPortal, handle: JobHandle[R_co]) -> None:
        self._portal = portal
        self._handle = handle

    @property
    def id(self) -> str:
        return self._handle.id

    @property
    def job(self) -> Job:
        """The record as it was last seen; `refresh` looks again."""
        return self._handle.job

    def refresh(self) -> Job:
        return self._portal.call(self._handle.refresh)

    def cancel(self) -> Job:
        """As `Dure.cancel`."""
        return self._portal.call(self._handle.cancel)

    def wait(self, timeout: float | None = None) -> Job:
        """The record once the job has ended, however it ended. Raises ResultTimeout after `timeout` seconds."""
        return self._portal.call(self._handle.wait, timeout)

    def result(self, timeout: float | None = None) -> R_co:
        """What the task returned, as JSON has it. Raises JobFailed, or ResultTimeout after `timeout` seconds."""
        return self._portal.call(self._handle.result, timeout)

    def __repr__(self) -> str:
        return f"<Sync{repr(self._handle).removeprefix('<')}"


class SyncDure:
    """A client that any thread may call, between entering its context and leaving it.

    Entering raises LedgerUnavailable, as `Dure` does.
    """

    def __init__(self, settings: Settings | None = None, **arguments: Any) -> None:
        self._dure = Dure(settings, **arguments)
        self._open: ExitStack | None = None
        self._loop: BlockingPortal | None = None

    @property
    def settings(self) -> Settings:
        return self._dure.settings

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name="dure-client"))
            stack.enter_context(portal.wrap_async_context_manager(self._dure))
            self._loop = portal
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stack, self._open, self._loop = self._open, None, None
        if stack is not None:
            stack.__exit__(kind, exc, traceback)

    # The overloads are those of `Dure.submit`, which says what they are for.
    @overload
    def submit(self, task: TaskOf[P, R], /, *args: P.args, **kwargs: P.kwargs) -> SyncJobHandle[R]: ...
    @overload
    def submit(
        self, task: Callable[[Unpack[Positions]], R], /, *args: *Positions, **options: Any
    ) -> SyncJobHandle[R]: ...
    @overload
    def submit(self, task: str, /, *args: Any, force: bool = False, **kwargs: Any) -> SyncJobHandle[Any]: ...
    def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> SyncJobHandle[Any]:  # type: ignore[misc]
        """Submit one job; returns when its row is committed. As `Dure.submit`."""
        return self._handle(self._call(lambda: self._dure.submit(task, *args, **kwargs)))

    def submit_many(
        self, submissions: Iterable[Submission], *, idempotency_key: str | None = None
    ) -> list[SyncJobHandle[Any]]:
        """Submit jobs as one: all rows are committed, or none. Raises as `submit` does."""
        wanted = list(submissions)  # read in the caller's thread, where the iterable belongs
        handles = self._call(lambda: self._dure.submit_many(wanted, idempotency_key=idempotency_key))
        return [self._handle(handle) for handle in handles]

    def cancel(self, job_id: str) -> Job:
        """As `Dure.cancel`."""
        return self._call(lambda: self._dure.cancel(job_id))

    def retry(self, job_id: str, edits: Edits | None = None) -> SyncJobHandle[Any]:
        """As `Dure.retry`."""
        return self._handle(self._call(lambda: self._dure.retry(job_id, edits)))

    def retry_many(
        self,
        wanted: JobFilter,
        edits: Edits | None = None,
        *,
        rate: float | None = None,
        limit: int = 1000,
        dry_run: bool = False,
    ) -> Resent:
        """As `Dure.retry_many`."""
        return self._call(lambda: self._dure.retry_many(wanted, edits, rate=rate, limit=limit, dry_run=dry_run))

    def dead(self, wanted: JobFilter | None = None, *, limit: int = 100) -> list[Group]:
        """As `Dure.dead`."""
        return self._call(lambda: self._dure.dead(wanted, limit=limit))

    def job(self, job_id: str) -> Job:
        """The whole record. Raises UnknownJob."""
        return self._call(lambda: self._dure.job(job_id))

    def handle(self, job_id: str) -> SyncJobHandle[Any]:
        """A handle on a job that was submitted before. Raises UnknownJob."""
        return self._handle(self._call(lambda: self._dure.handle(job_id)))

    @property
    def _portal(self) -> BlockingPortal:
        if self._loop is None:
            raise RuntimeError("SyncDure is used inside `with SyncDure(...) as dure:`")
        return self._loop

    def _call(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        return self._portal.call(ask)

    def _handle(self, handle: JobHandle[R]) -> SyncJobHandle[R]:
        return SyncJobHandle(self._portal, handle)
