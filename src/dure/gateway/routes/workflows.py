"""Looking workflows up."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dure.gateway.dependency import DureDep
from dure.gateway.problems import ProblemRoute
from dure.gateway.render import json_response
from dure.gateway.routes.jobs import AWAY, INVALID
from dure.gateway.schemas import Problem
from dure.gateway.workflow_results import result_response
from dure.gateway.workflow_schemas import PendingWorkflow, WholeWorkflow, WorkflowPage, WorkflowResult, WorkflowState
from dure.job import State
from dure.view import whole_workflow_view, workflow_view

router = APIRouter(route_class=ProblemRoute, tags=["workflows"])

WorkflowId = Annotated[
    str, Path(description="The workflow's id; of a canvas that plain Celery code sent, its root's or its group's.")
]

UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "Nobody submitted this workflow"}}


class Listing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    state: WorkflowState | None = None
    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = Field(None, max_length=64, description="`next` of the page before.")


@router.get("/workflows", summary="List workflows", response_model=WorkflowPage, responses={**INVALID, **AWAY})
async def list_workflows(request: Request, dure: DureDep, listing: Annotated[Listing, Query()]) -> Response:
    """Newest first. Pages stay right while workflows arrive: a new one is on none of the later pages."""
    state = None if listing.state is None else State(listing.state)
    page = await dure.ledger.workflows(state=state, cursor=listing.cursor, limit=listing.limit)
    headers = {}
    if page.next is not None:
        following = request.url.include_query_params(cursor=page.next)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    views = [workflow_view(workflow) for workflow in page.workflows]
    return json_response({"workflows": views, "next": page.next}, headers=headers)


@router.get(
    "/workflows/{workflow_id}",
    summary="Look up a workflow",
    response_model=WholeWorkflow,
    responses={**UNKNOWN, **INVALID, **AWAY},
)
async def find_workflow(
    workflow_id: WorkflowId,
    dure: DureDep,
    nodes: Annotated[bool, Query(description="`false` leaves out the nodes and the critical path.")] = True,
) -> Response:
    """Its record, how far it is, and each node with what it needs, in the order in which they were made."""
    view = await dure.workflow(workflow_id, nodes=nodes)
    return json_response(whole_workflow_view(view, nodes=nodes))


@router.get(
    "/workflows/{workflow_id}/result",
    summary="The result of a workflow",
    response_model=WorkflowResult,
    responses={
        200: {"model": WorkflowResult, "description": "Done"},
        202: {"model": PendingWorkflow, "description": "Not yet; Retry-After says when to ask again"},
        500: {"model": Problem, "description": "The workflow failed; the problem names the node, and holds its error"},
        **UNKNOWN,
        **AWAY,
    },
)
async def find_workflow_result(workflow_id: WorkflowId, dure: DureDep) -> Response:
    """200 done, 202 not yet, 404 for an id that nobody submitted, 500 with the first node that failed."""
    return await result_response(await dure.workflow_handle(workflow_id))
