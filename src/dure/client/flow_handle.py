"""What submitting a workflow gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from dure.client.handle import JobHandle
from dure.errors import ResultTimeout, UnknownNode, WorkflowFailed
from dure.feed import FeedEvent
from dure.job import Job, State
from dure.ledger import WorkflowView
from dure.workflow import Workflow

if TYPE_CHECKING:
    from dure.client.dure import Dure

R_co = TypeVar("R_co", covariant=True)


class WorkflowHandle(Generic[R_co]):
    """A submitted workflow; `R_co` is what its result is."""

    def __init__(self, dure: Dure, workflow: Workflow) -> None:
        self._dure = dure
        self._workflow = workflow

    @property
    def id(self) -> str:
        return self._workflow.id

    @property
    def workflow(self) -> Workflow:
        """The record as it was last seen; `refresh` looks again."""
        return self._workflow

    async def refresh(self) -> Workflow:
        self._workflow = (await self._dure.workflow_handle(self.id)).workflow
        return self._workflow

    async def view(self) -> WorkflowView:
        """The record with all nodes, as they are now."""
        view = await self._dure.workflow(self.id)
        self._workflow = view.workflow
        return view

    async def job(self, node: str) -> JobHandle[Any]:
        """The job that the node of this name is now. Raises UnknownNode."""
        job = await self._dure.ledger.node(self.id, node)
        if job is None:
            raise UnknownNode(self.id, node)
        return JobHandle(self._dure, job)

    async def cancel(self) -> Workflow:
        """As `Dure.cancel_workflow`."""
        self._workflow = await self._dure.cancel_workflow(self.id)
        return self._workflow

    async def retry(self, node: str | None = None) -> Workflow:
        """As `Dure.retry_workflow`."""
        self._workflow = await self._dure.retry_workflow(self.id, node)
        return self._workflow

    async def signal(self, node: str, payload: Any = None) -> Job:
        """As `Dure.signal`."""
        return await self._dure.signal(self.id, node, payload)

    async def wait(self, timeout: float | None = None) -> Workflow:
        """The record once the workflow has ended, however it ended. Raises ResultTimeout after `timeout` seconds."""
        ended = await self._dure.flow_waiting.wait(self._workflow, timeout)
        if ended is None:
            raise ResultTimeout(self.id, timeout or 0.0, "workflow")
        self._workflow = ended
        return ended

    async def result(self, timeout: float | None = None) -> R_co:
        """The result of the whole: a chain's is its last one's, a group's the list of theirs in order.

        Raises WorkflowFailed, or ResultTimeout after `timeout` seconds.
        """
        ended = await self.wait(timeout)
        if ended.state is not State.SUCCESS:
            raise WorkflowFailed(ended, await self._dure.ledger.workflow_failure(self.id))
        return cast(R_co, await self._dure.ledger.workflow_result(ended))

    def events(self, *, after: str | None = None) -> AsyncIterator[FeedEvent]:
        """As `Dure.workflow_events`."""
        return self._dure.workflow_events(self.id, after=after)

    def __repr__(self) -> str:
        return f"<WorkflowHandle {self._workflow.name or ''}[{self.id}] {self._workflow.state}>"
