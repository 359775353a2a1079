"""Looking jobs up."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from dure.gateway.dependency import DureDep
from dure.gateway.problems import ProblemRoute
from dure.gateway.render import json_response
from dure.gateway.results import result_response
from dure.gateway.routes.filters import Listing, job_filter
from dure.gateway.schemas import JobPage, JobRecord, PendingRecord, Problem, ResultRecord
from dure.view import job_view

router = APIRouter(route_class=ProblemRoute, tags=["jobs"])

JobId = Annotated[str, Path(description="The job's id, which is Celery's task id.")]

UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "Nobody submitted this id"}}
AWAY: dict[int | str, dict[str, Any]] = {503: {"model": Problem, "description": "The ledger cannot be used now"}}
INVALID: dict[int | str, dict[str, Any]] = {422: {"model": Problem, "description": "A parameter does not fit"}}


@router.get("/jobs", summary="List jobs", response_model=JobPage, responses={**INVALID, **AWAY})
async def list_jobs(request: Request, dure: DureDep, listing: Annotated[Listing, Query()]) -> Response:
    """Newest first. Pages stay right while jobs arrive: a new one is on none of the later pages."""
    page = await dure.ledger.jobs(job_filter(listing), cursor=listing.cursor, limit=listing.limit)
    headers = {}
    if page.next is not None:
        following = request.url.include_query_params(cursor=page.next)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return json_response({"jobs": [job_view(job) for job in page.jobs], "next": page.next}, headers=headers)


@router.get("/jobs/{job_id}", summary="Look up a job", response_model=JobRecord, responses={**UNKNOWN, **AWAY})
async def find_job(job_id: JobId, dure: DureDep) -> Response:
    """The whole record."""
    return json_response(job_view(await dure.job(job_id)))


@router.get(
    "/jobs/{job_id}/result",
    summary="The result of a job",
    response_model=ResultRecord,
    responses={
        200: {"model": ResultRecord, "description": "Done"},
        202: {"model": PendingRecord, "description": "Not yet; Retry-After says when to ask again"},
        500: {"model": Problem, "description": "The job failed; the problem holds the task's error"},
        **UNKNOWN,
        **AWAY,
    },
)
async def find_result(job_id: JobId, dure: DureDep) -> Response:
    """200 done, 202 not yet, 404 for an id that nobody submitted, 500 with the task's error."""
    return result_response(await dure.job(job_id))
