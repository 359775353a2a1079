"""Dead letters: jobs whose message could not be run, or not to an end."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from dure.gateway.dependency import DureDep
from dure.gateway.problems import ProblemRoute, problem
from dure.gateway.render import json_response
from dure.gateway.routes.again import MANY, ManyAgain, read_again, resend, with_options
from dure.gateway.routes.filters import DeadListing, Words, job_filter
from dure.gateway.routes.jobs import AWAY, INVALID
from dure.gateway.schemas import GroupList, Problem
from dure.job import Reason
from dure.ledger import JobFilter
from dure.view import group_view

router = APIRouter(route_class=ProblemRoute, tags=["dead letters"])


class GroupAgain(ManyAgain):
    """What is changed of the jobs, and which of the group are meant."""

    task: Words | None = Field(None, description="Only those of this task.")
    reason: Reason | None = Field(None, description="Only those that ended for this reason.")


@router.get("/dead", summary="List dead letters", response_model=GroupList, responses={**INVALID, **AWAY})
async def list_dead(dure: DureDep, listing: Annotated[DeadListing, Query()]) -> Response:
    """Those that were not sent again, in groups that ended alike; the largest group first."""
    groups = await dure.dead(job_filter(listing), limit=listing.limit)
    return json_response({"groups": [group_view(group) for group in groups]})


@router.post(
    "/dead/{fingerprint}/retry",
    status_code=202,
    summary="Send a group of dead letters again",
    responses={**MANY, 404: {"model": Problem, "description": "No dead letter has this fingerprint"}},
    openapi_extra={"requestBody": with_options(GroupAgain)},
)
async def retry_group(
    fingerprint: Annotated[str, Path(description="The group's, as the list of dead letters tells it.")],
    request: Request,
    dure: DureDep,
) -> Response:
    """Those of the group that were not sent again yet."""
    body, edits = await read_again(request, dure, GroupAgain)
    wanted = JobFilter(fingerprint=fingerprint, dead=True, task=body.task, reason=body.reason)
    if not fingerprint.isprintable() or not await dure.ledger.count_jobs(wanted):
        detail = f"no dead letter has the fingerprint {fingerprint!r}"
        if body.task or body.reason:
            detail += " and this task and reason"
        return problem(404, "unknown-group", "Unknown group", detail)
    return await resend(dure, wanted, edits, body)
