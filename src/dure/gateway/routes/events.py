"""Live feeds as server-sent events: of a job, of a workflow, and of all jobs that fit."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dure.gateway.access import grant_of
from dure.gateway.dependency import DureDep
from dure.gateway.feeds import feeds_of, open_filter, open_job, open_workflow
from dure.gateway.problems import ProblemRoute
from dure.gateway.routes.filters import Words
from dure.gateway.routes.jobs import AWAY, INVALID, UNKNOWN, JobId
from dure.gateway.routes.workflows import UNKNOWN as UNKNOWN_WORKFLOW
from dure.gateway.routes.workflows import WorkflowId
from dure.gateway.schemas import Problem
from dure.gateway.sse import FeedResponse
from dure.ledger import JobFilter

router = APIRouter(route_class=ProblemRoute, tags=["feeds"])

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "`event:` is its kind, `id:` resumes the feed behind it, `data:` is JSON",
    },
    400: {"model": Problem, "description": "The event id is not one of this feed"},
}
_OVER: dict[int | str, dict[str, Any]] = {204: {"description": "All of the feed was read, up to its `result`"}}

_END = Response(status_code=204)  # by which a browser's EventSource learns not to come again

After = Annotated[str | None, Query(max_length=255, description="The id of the last event that was read.")]
LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=255, description="As `after`, and before it: browsers send it."),
]


class Watched(BaseModel):
    """Several are all to hold; none at all is every job."""

    model_config = ConfigDict(extra="forbid")

    task: Words | None = None
    queue: Words | None = None
    tag: Words | None = None
    after: str | None = Field(None, max_length=255, description="The id of the last event that was read.")


@router.get(
    "/jobs/{job_id}/events",
    summary="Watch a job",
    response_class=Response,
    responses={**_STREAM, **_OVER, **UNKNOWN, **INVALID, **AWAY},
)
async def job_events(
    job_id: JobId, request: Request, dure: DureDep, after: After = None, last_event_id: LastEventId = None
) -> Response:
    """What was, then what happens: states, progress, output, log lines, and the result, which is the last."""
    feed = await open_job(dure, job_id, last_event_id or after)
    return _END if feed.over else FeedResponse(feed, feeds_of(request.scope), dure.settings)


@router.get(
    "/workflows/{workflow_id}/events",
    summary="Watch a workflow",
    response_class=Response,
    responses={**_STREAM, **_OVER, **UNKNOWN_WORKFLOW, **INVALID, **AWAY},
)
async def workflow_events(
    workflow_id: WorkflowId, request: Request, dure: DureDep, after: After = None, last_event_id: LastEventId = None
) -> Response:
    """The same of all its nodes and of itself, in the order in which the ledger has it."""
    feed = await open_workflow(dure, workflow_id, last_event_id or after)
    return _END if feed.over else FeedResponse(feed, feeds_of(request.scope), dure.settings)


@router.get("/events", summary="Watch jobs", response_class=Response, responses={**_STREAM, **INVALID, **AWAY})
async def filter_events(
    request: Request, dure: DureDep, watched: Annotated[Watched, Query()], last_event_id: LastEventId = None
) -> Response:
    """What happens from now on to the jobs that fit; it never ends by itself."""
    wanted = JobFilter(task=watched.task, queue=watched.queue, tag=watched.tag)
    feed = await open_filter(dure, wanted, last_event_id or watched.after)
    grant = grant_of(request.scope)
    until = None if grant is None else grant.expires_at
    return FeedResponse(feed, feeds_of(request.scope), dure.settings, until=until)
