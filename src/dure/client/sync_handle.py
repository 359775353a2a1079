"""What submitting gives back to programs without asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

from anyio.from_thread import BlockingPortal

from dure.client.flow_handle import WorkflowHandle
from dure.client.handle import JobHandle
from dure.feed import FeedEvent
from dure.job import Job
from dure.ledger import WorkflowView
from dure.workflow import Workflow

R_co = TypeVar("R_co", covariant=True)
Item = TypeVar("Item")


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

    def events(self, *, after: str | None = None) -> Iterator[FeedEvent]:
        """As `Dure.job_events`."""
        return steps(self._portal, self._handle.events(after=after))

    def output(self) -> Iterator[Any]:
        """As `JobHandle.output`."""
        return steps(self._portal, self._handle.output())

    def __repr__(self) -> str:
        return f"<Sync{repr(self._handle).removeprefix('<')}"


class SyncWorkflowHandle(Generic[R_co]):
    """A submitted workflow, as `WorkflowHandle` is, with calls that wait."""

    def __init__(self, portal: BlockingPortal, handle: WorkflowHandle[R_co]) -> None:
        self._portal = portal
        self._handle = handle

    @property
    def id(self) -> str:
        return self._handle.id

    @property
    def workflow(self) -> Workflow:
        """The record as it was last seen; `refresh` looks again."""
        return self._handle.workflow

    def refresh(self) -> Workflow:
        return self._portal.call(self._handle.refresh)

    def view(self) -> WorkflowView:
        """The record with all nodes, as they are now."""
        return self._portal.call(self._handle.view)

    def job(self, node: str) -> SyncJobHandle[Any]:
        """The job that the node of this name is now. Raises UnknownNode."""
        return SyncJobHandle(self._portal, self._portal.call(self._handle.job, node))

    def cancel(self) -> Workflow:
        """As `Dure.cancel_workflow`."""
        return self._portal.call(self._handle.cancel)

    def retry(self, node: str | None = None) -> Workflow:
        """As `Dure.retry_workflow`."""
        return self._portal.call(self._handle.retry, node)

    def signal(self, node: str, payload: Any = None) -> Job:
        """As `Dure.signal`."""
        job: Job = self._portal.call(self._handle.signal, node, payload)
        return job

    def wait(self, timeout: float | None = None) -> Workflow:
        """The record once the workflow has ended, however it ended. Raises ResultTimeout after `timeout` seconds."""
        return self._portal.call(self._handle.wait, timeout)

    def result(self, timeout: float | None = None) -> R_co:
        """The result of the whole. Raises WorkflowFailed, or ResultTimeout after `timeout` seconds."""
        return self._portal.call(self._handle.result, timeout)

    def events(self, *, after: str | None = None) -> Iterator[FeedEvent]:
        """As `Dure.workflow_events`."""
        return steps(self._portal, self._handle.events(after=after))

    def __repr__(self) -> str:
        return f"<Sync{repr(self._handle).removeprefix('<')}"


def steps(portal: BlockingPortal, items: AsyncIterator[Item]) -> Iterator[Item]:
    """What the client's loop iterates over, step by step in the caller's thread."""
    try:
        while True:
            try:
                item = portal.call(anext, items)
            except StopAsyncIteration:
                return
            yield item
    finally:
        if isinstance(items, AsyncGenerator):
            with suppress(RuntimeError):  # the client was closed before
                portal.call(items.aclose)
