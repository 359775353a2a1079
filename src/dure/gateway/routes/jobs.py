"""Looking jobs up."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AwareDatetime, StringConstraints

from dure.errors import FieldError, InvalidSubmission
from dure.gateway.dependency import DureDep
from dure.gateway.problems import ProblemRoute
from dure.gateway.render import json_response
from dure.gateway.results import result_response
from dure.gateway.schemas import JobPage, JobRecord, PendingRecord, Problem, ResultRecord
from dure.job import State
from dure.ledger import JobFilter
from dure.view import job_view

router = APIRouter(route_class=ProblemRoute, tags=["jobs"])

Words = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]
JobId = Annotated[str, Path(description="The job's id, which is Celery's task id.")]

_FILTERS = frozenset({*JobFilter.__struct_fields__, "limit", "cursor"})

_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "Nobody submitted this id"}}
_AWAY: dict[int | str, dict[str, Any]] = {503: {"model": Problem, "description": "The ledger cannot be used now"}}
_INVALID: dict[int | str, dict[str, Any]] = {422: {"model": Problem, "description": "A parameter does not fit"}}


@router.get("/jobs", summary="List jobs", response_model=JobPage, responses={**_INVALID, **_AWAY})
async def list_jobs(
    request: Request,
    dure: DureDep,
    state: State | None = None,
    task: Words | None = None,
    queue: Words | None = None,
    worker: Words | None = None,
    tag: Words | None = None,
    since: Annotated[AwareDatetime | None, Query(description="Created at this time or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Created before this time.")] = None,
    text: Annotated[Words | None, Query(description="Looked for in the arguments, in any case.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
) -> Response:
    """Newest first. Pages stay right while jobs arrive: a new one is on none of the later pages."""
    _refuse_unknown(request)
    wanted = JobFilter(
        state=state,
        task=task,
        queue=queue,
        worker=worker,
        tag=tag,
        since=since.timestamp() if since else None,
        until=until.timestamp() if until else None,
        text=text,
    )
    page = await dure.ledger.jobs(wanted, cursor=cursor, limit=limit)
    headers = {}
    if page.next is not None:
        following = request.url.include_query_params(cursor=page.next)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return json_response({"jobs": [job_view(job) for job in page.jobs], "next": page.next}, headers=headers)


def _refuse_unknown(request: Request) -> None:
    """A misspelt filter that was passed over would list everything."""
    unknown = [key for key in request.query_params if key not in _FILTERS]
    if unknown:
        raise InvalidSubmission([FieldError((key,), "is not a filter of this list") for key in unknown])


@router.get("/jobs/{job_id}", summary="Look up a job", response_model=JobRecord, responses={**_UNKNOWN, **_AWAY})
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
        **_UNKNOWN,
        **_AWAY,
    },
)
async def find_result(job_id: JobId, dure: DureDep) -> Response:
    """200 done, 202 not yet, 404 for an id that nobody submitted, 500 with the task's error."""
    return result_response(await dure.job(job_id))
