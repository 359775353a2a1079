"""Cancelling workflows, running them again, signalling their nodes that wait."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dure.errors import FieldError, InvalidSubmission
from dure.gateway.body import read_json
from dure.gateway.dependency import DureDep
from dure.gateway.problems import ProblemRoute, read_errors
from dure.gateway.render import json_response
from dure.gateway.routes.again import BODY
from dure.gateway.routes.jobs import AWAY
from dure.gateway.routes.workflows import UNKNOWN, WorkflowId
from dure.gateway.schemas import JobRecord, Problem
from dure.gateway.workflow_schemas import WorkflowRecord
from dure.job import State
from dure.view import job_view, workflow_view

router = APIRouter(route_class=ProblemRoute, tags=["workflows"])

NodeName = Annotated[str, Path(description="The node's name, as the look-up tells it.")]

_NO_NODE: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "Nobody submitted this workflow, or it has no such node"}
}


class Again(BaseModel):
    """From where the workflow is run again."""

    model_config = ConfigDict(extra="forbid")

    node: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="This node, and all that need it; every node that failed, and all that need those, if not said.",
        examples=["charge"],
    )


def _in_body(schema: dict[str, Any], about: str, example: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": False, "description": about, "content": content}}


@router.post(
    "/workflows/{workflow_id}/cancel",
    summary="Cancel a workflow",
    responses={
        200: {"model": WorkflowRecord, "description": "REVOKED: no node of it runs, and none will"},
        202: {"model": WorkflowRecord, "description": "Nodes of it run, and their workers were asked to end them"},
        409: {"model": Problem, "description": "It has ended otherwise"},
        **UNKNOWN,
        **AWAY,
    },
)
async def cancel_workflow(workflow_id: WorkflowId, dure: DureDep) -> Response:
    """What nobody has begun never runs. What runs is ended where its worker's pool can; what has ended stays so."""
    workflow = await dure.cancel_workflow(workflow_id)
    return json_response(workflow_view(workflow), 200 if workflow.state is State.REVOKED else 202)


@router.post(
    "/workflows/{workflow_id}/retry",
    status_code=202,
    summary="Run a workflow again",
    responses={
        202: {"model": WorkflowRecord, "description": "Accepted: the rows of the new jobs are committed"},
        409: {"model": Problem, "description": "The workflow, or the node, has not ended"},
        **_NO_NODE,
        **BODY,
        **AWAY,
    },
    openapi_extra=_in_body(Again.model_json_schema(), "May be left out.", {"node": "charge"}),
)
async def retry_workflow(workflow_id: WorkflowId, request: Request, dure: DureDep) -> Response:
    """Nodes that succeeded are kept, with their results; those that are run again get new jobs."""
    given = await read_json(request, dure.settings.body_limit)
    if given is not None and not isinstance(given, dict):
        raise InvalidSubmission([FieldError(("body",), "must be an object")])
    try:
        again = Again.model_validate(given or {})
    except ValidationError as exc:
        raise InvalidSubmission(read_errors(exc.errors())) from None
    return json_response(workflow_view(await dure.retry_workflow(workflow_id, node=again.node)), 202)


@router.post(
    "/workflows/{workflow_id}/signals/{node}",
    summary="Signal a node that waits",
    responses={
        200: {"model": JobRecord, "description": "Kept: the node ends with this result as soon as its needs are met"},
        409: {"model": Problem, "description": "The node has ended"},
        **_NO_NODE,
        **BODY,
        **AWAY,
    },
    openapi_extra=_in_body({}, "Any JSON: it is the node's result. Without a body that is null.", {"approved": True}),
)
async def signal_node(workflow_id: WorkflowId, node: NodeName, request: Request, dure: DureDep) -> Response:
    """Ends a wait, with the body as its result. A signal may come before the wait has begun."""
    payload = await read_json(request, dure.settings.body_limit)
    return json_response(job_view(await dure.signal(workflow_id, node, payload)))
