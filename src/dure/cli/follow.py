"""Watch one job to its end, with its state in a live line on stderr; or a workflow, drawn there."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.text import Text

from dure.cli import show, times
from dure.cli.terminal import err, print_answer
from dure.errors import LedgerUnavailable, WorkflowFailed
from dure.view import whole_workflow_view

if TYPE_CHECKING:
    from dure.client import Dure, JobHandle, WorkflowHandle
    from dure.job import Job

_LOOK_SECONDS = 0.25


async def follow(dure: Dure, handle: JobHandle[Any], timeout: float | None) -> Job:
    """The record once the job has ended. Raises ResultTimeout."""
    waiting = asyncio.create_task(handle.wait(timeout))
    with err().status(_line(handle.job)) as status:
        while not waiting.done():
            await asyncio.wait([waiting], timeout=_LOOK_SECONDS)
            with suppress(LedgerUnavailable):
                status.update(_line(await dure.job(handle.id)))
    return await waiting


async def follow_workflow(dure: Dure, handle: WorkflowHandle[Any], timeout: float | None, *, as_json: bool) -> None:
    """Print its result. Raises WorkflowFailed or ResultTimeout."""
    from dure.cli.redraw import redraw

    waiting = asyncio.ensure_future(handle.result(timeout))
    try:
        if err().is_terminal:
            await redraw(lambda: dure.workflow(handle.id), err(), waiting)
        result = await waiting
    except WorkflowFailed:
        if as_json:
            print_answer(whole_workflow_view(await dure.workflow(handle.id)))
        raise
    finally:
        waiting.cancel()
    if as_json:
        print_answer(whole_workflow_view(await dure.workflow(handle.id)) | {"result": result})
    else:
        print_answer(result)


def _line(job: Job) -> Text:
    since = job.started_at or job.created_at
    worker = f" on {job.worker}" if job.worker else ""
    passed = times.span(max(0.0, time.time() - since))
    return Text.assemble(show.state(job.state), f" {job.task}{worker}  ", (passed, "dim"))
