"""The client for programs without asyncio: Flask views, scripts, other threads.

    with SyncDure() as dure:
        job = dure.submit(add, 2, 3, queue="sums")
        print(job.result(timeout=10))

One asyncio client runs on a loop in a thread of its own, and every call is carried out there. Calls from several
threads at once therefore share transactions and flights to the broker, as they do on one loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, TypeVarTuple, Unpack, overload

from anyio.from_thread import BlockingPortal, start_blocking_portal

from dure.client.again import Edits, Resent
from dure.client.dure import Dure
from dure.client.flow_handle import WorkflowHandle
from dure.client.handle import JobHandle
from dure.client.submission import Submission
from dure.client.sync_handle import SyncJobHandle, SyncWorkflowHandle, steps
from dure.feed import FeedEvent
from dure.job import Job
from dure.ledger import Group, JobFilter, WorkflowView
from dure.settings import Settings
from dure.typing import CanvasOf, FlowOptions, SignatureOf, TaskOf
from dure.workflow import Workflow

if TYPE_CHECKING:
    from dure.workflows.builder import DAG

P = ParamSpec("P")
R = TypeVar("R")
Answer = TypeVar("Answer")
Positions = TypeVarTuple("Positions")


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
    def submit(self, workflow: CanvasOf | DAG, /, **options: Unpack[FlowOptions]) -> SyncWorkflowHandle[Any]: ...
    @overload
    def submit(self, signature: SignatureOf, /, **options: Any) -> SyncJobHandle[Any] | SyncWorkflowHandle[Any]: ...
    @overload
    def submit(self, task: TaskOf[P, R], /, *args: P.args, **kwargs: P.kwargs) -> SyncJobHandle[R]: ...
    @overload
    def submit(
        self, task: Callable[[Unpack[Positions]], R], /, *args: *Positions, **options: Any
    ) -> SyncJobHandle[R]: ...
    @overload
    def submit(self, task: str, /, *args: Any, force: bool = False, **kwargs: Any) -> SyncJobHandle[Any]: ...
    def submit(  # type: ignore[misc]
        self, task: Any, /, *args: Any, **kwargs: Any
    ) -> SyncJobHandle[Any] | SyncWorkflowHandle[Any]:
        """Submit one job or one workflow; returns when its rows are committed. As `Dure.submit`."""
        handle: JobHandle[Any] | WorkflowHandle[Any] = self._call(lambda: self._dure.submit(task, *args, **kwargs))
        return self._flow(handle) if isinstance(handle, WorkflowHandle) else self._handle(handle)

    def submit_many(
        self, submissions: Iterable[Submission], *, idempotency_key: str | None = None
    ) -> list[SyncJobHandle[Any]]:
        """Submit jobs as one: all rows are committed, or none. Raises as `submit` does."""
        wanted = list(submissions)  # read in the caller's thread, where the iterable belongs
        handles = self._call(lambda: self._dure.submit_many(wanted, idempotency_key=idempotency_key))
        return [self._handle(handle) for handle in handles]

    def submit_workflow(
        self, spec: Mapping[str, Any], *, idempotency_key: str | None = None, force: bool = False
    ) -> SyncWorkflowHandle[Any]:
        """As `Dure.submit_workflow`."""
        return self._flow(
            self._call(lambda: self._dure.submit_workflow(spec, idempotency_key=idempotency_key, force=force))
        )

    def cancel(self, job_id: str) -> Job:
        """As `Dure.cancel`."""
        return self._call(lambda: self._dure.cancel(job_id))

    def cancel_workflow(self, workflow_id: str) -> Workflow:
        """As `Dure.cancel_workflow`."""
        return self._call(lambda: self._dure.cancel_workflow(workflow_id))

    def retry(self, job_id: str, edits: Edits | None = None) -> SyncJobHandle[Any]:
        """As `Dure.retry`."""
        return self._handle(self._call(lambda: self._dure.retry(job_id, edits)))

    def retry_workflow(self, workflow_id: str, node: str | None = None) -> Workflow:
        """As `Dure.retry_workflow`."""
        return self._call(lambda: self._dure.retry_workflow(workflow_id, node))

    def signal(self, workflow_id: str, node: str, payload: Any = None) -> Job:
        """As `Dure.signal`."""
        return self._call(lambda: self._dure.signal(workflow_id, node, payload))

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

    def workflow(self, workflow_id: str, *, nodes: bool = True) -> WorkflowView:
        """As `Dure.workflow`."""
        return self._call(lambda: self._dure.workflow(workflow_id, nodes=nodes))

    def workflow_handle(self, workflow_id: str) -> SyncWorkflowHandle[Any]:
        """A handle on a workflow that was submitted before. Raises UnknownWorkflow."""
        return self._flow(self._call(lambda: self._dure.workflow_handle(workflow_id)))

    def job_events(self, job_id: str, *, after: str | None = None) -> Iterator[FeedEvent]:
        """As `Dure.job_events`."""
        return steps(self._portal, self._dure.job_events(job_id, after=after))

    def workflow_events(self, workflow_id: str, *, after: str | None = None) -> Iterator[FeedEvent]:
        """As `Dure.workflow_events`."""
        return steps(self._portal, self._dure.workflow_events(workflow_id, after=after))

    def events(self, wanted: JobFilter | None = None, *, after: str | None = None) -> Iterator[FeedEvent]:
        """As `Dure.events`."""
        return steps(self._portal, self._dure.events(wanted, after=after))

    @property
    def _portal(self) -> BlockingPortal:
        if self._loop is None:
            raise RuntimeError("SyncDure is used inside `with SyncDure(...) as dure:`")
        return self._loop

    def _call(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        return self._portal.call(ask)

    def _handle(self, handle: JobHandle[R]) -> SyncJobHandle[R]:
        return SyncJobHandle(self._portal, handle)

    def _flow(self, handle: WorkflowHandle[R]) -> SyncWorkflowHandle[R]:
        return SyncWorkflowHandle(self._portal, handle)
