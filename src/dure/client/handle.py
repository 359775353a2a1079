"""What a submission gives back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from dure.errors import JobFailed, ResultTimeout
from dure.feed import FeedEvent, FeedKind
from dure.job import Job, State
from dure.workflows.compile import sub_workflow

if TYPE_CHECKING:
    from dure.client.dure import Dure

R_co = TypeVar("R_co", covariant=True)


class JobHandle(Generic[R_co]):
    """A submitted job; `R_co` is what its task returns."""

    def __init__(self, dure: Dure, job: Job) -> None:
        self._dure = dure
        self._job = job

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def job(self) -> Job:
        """The record as it was last seen; `refresh` looks again."""
        return self._job

    async def refresh(self) -> Job:
        self._job = await self._dure.job(self.id)
        return self._job

    async def cancel(self) -> Job:
        """As `Dure.cancel`."""
        self._job = await self._dure.cancel(self.id)
        return self._job

    async def wait(self, timeout: float | None = None) -> Job:
        """The record once the job has ended, however it ended. Raises ResultTimeout after `timeout` seconds."""
        ended = await self._dure.waiting.wait(self._job, timeout)
        if ended is None:
            raise ResultTimeout(self.id, timeout or 0.0)
        self._job = ended
        return ended

    async def result(self, timeout: float | None = None) -> R_co:
        """What the task returned, as JSON has it; of a node that returned a workflow, the result of that.

        Raises JobFailed, or ResultTimeout after `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        ended = await self.wait(timeout)
        while ended.replaced_by is not None and sub_workflow(ended.result) is not None:
            made = await self._dure.handle(ended.replaced_by)
            ended = await made.wait(None if until is None else max(0.0, until - time.monotonic()))
        if ended.state is not State.SUCCESS:
            raise JobFailed(ended)
        return cast(R_co, ended.result)

    def events(self, *, after: str | None = None) -> AsyncIterator[FeedEvent]:
        """As `Dure.job_events`."""
        return self._dure.job_events(self.id, after=after)

    async def output(self) -> AsyncIterator[Any]:
        """The chunks that the task emits, to its end; those of an attempt that failed, too. Raises JobFailed then, if
        the job did not succeed."""
        async for event in self.events():
            if event.kind is FeedKind.OUTPUT:
                yield event.data["chunk"]
        if (await self.wait()).state is not State.SUCCESS:
            raise JobFailed(self._job)

    def __repr__(self) -> str:
        return f"<JobHandle {self._job.task}[{self.id}] {self._job.state}>"
