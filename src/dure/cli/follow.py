"""Watch a job to its end, with what it tells on stderr and its state in the last line; or a workflow, drawn there."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from rich.live import Live

from dure.cli.bar import Bar
from dure.cli.lines import Lines, print_event
from dure.cli.terminal import err, print_answer
from dure.errors import ResultTimeout, UnknownWorkflow, WorkflowFailed
from dure.view import whole_workflow_view

if TYPE_CHECKING:
    from dure.client import Dure, WorkflowHandle
    from dure.job import Job

_FRAMES = 10


async def follow(dure: Dure, job_id: str, timeout: float | None, *, events: bool = False) -> Job:
    """The record once the job has ended; with `events` each is printed as JSON. Raises UnknownJob or ResultTimeout."""
    feed = await dure.watching.open_job(job_id)
    lines = Lines()
    bar = Bar(feed.job, lines)
    drawn = Live(bar, console=err(), refresh_per_second=_FRAMES, transient=True)
    try:
        async with asyncio.timeout(timeout):
            with drawn if err().is_terminal and not events else nullcontext():
                while batch := await feed.batch():
                    bar.job = feed.job
                    for event in batch:
                        if events:
                            print_event(event)
                        else:
                            bar.take(event)
                            lines.show(event)
    except TimeoutError:
        raise ResultTimeout(job_id, timeout or 0.0) from None
    finally:
        await feed.close()
    return feed.job


async def follow_workflow(
    dure: Dure, handle: WorkflowHandle[Any], timeout: float | None, *, as_json: bool, events: bool = False
) -> None:
    """Print its result; with `events` each as JSON instead. Raises WorkflowFailed or ResultTimeout."""
    from dure.cli.redraw import redraw

    telling = asyncio.create_task(_tell(dure, handle.id, events=events))
    waiting = asyncio.ensure_future(handle.result(timeout))
    try:
        if err().is_terminal and not events:
            await redraw(lambda: dure.workflow(handle.id), err(), waiting)
        result = await waiting
        told = await telling
    except WorkflowFailed:
        if not await telling and as_json:
            print_answer(whole_workflow_view(await dure.workflow(handle.id)))
        raise
    finally:
        waiting.cancel()
        telling.cancel()
    if told:
        return
    if as_json:
        print_answer(whole_workflow_view(await dure.workflow(handle.id)) | {"result": result})
    else:
        print_answer(result)


async def _tell(dure: Dure, workflow_id: str, *, events: bool) -> bool:
    """Whether its events were the answer; there are none of a workflow that plain Celery code sent."""
    lines = Lines()
    with suppress(UnknownWorkflow):
        async for event in dure.workflow_events(workflow_id):
            if events:
                print_event(event)
            else:
                lines.show(event)
        return events
    return False
