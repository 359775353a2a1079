"""Submitting workflows."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, cast

from fastapi import APIRouter, Body, Query, Request, Response

from dure.client.flow_handle import WorkflowHandle
from dure.errors import ResultTimeout
from dure.gateway.body import read_json
from dure.gateway.dependency import DureDep
from dure.gateway.lean import LeanRoute
from dure.gateway.render import json_response
from dure.gateway.routes.submit import KEY, PREFER, REFUSALS, REPLAYED, key_of
from dure.gateway.schemas import Problem
from dure.gateway.submit import is_true, preferred_wait
from dure.gateway.workflow_examples import EXAMPLES
from dure.gateway.workflow_results import RETRY_AFTER, as_accepted
from dure.gateway.workflow_schemas import EndedWorkflow, WorkflowRecord
from dure.view import workflow_view
from dure.workflow import Workflow
from dure.workflows.spec import Spec

router = APIRouter(route_class=LeanRoute, tags=["workflows"])

_WHERE = {
    "Location": {"description": "The record of the workflow.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds until it is worth asking again.", "schema": {"type": "integer"}},
}
_UNREAD = cast(Any, None)  # the body's type is for the document; the endpoint reads it itself


@router.post(
    "/workflows",
    status_code=202,
    summary="Submit a workflow",
    responses={
        200: {"model": EndedWorkflow, "description": "Ended within `Prefer: wait=N`", "headers": REPLAYED},
        202: {"model": WorkflowRecord, "description": "Accepted: all rows are committed", "headers": _WHERE | REPLAYED},
        500: {"model": Problem, "description": "Failed within `Prefer: wait=N`"},
        **{status: about for status, about in REFUSALS.items() if status != 404},
    },
    openapi_extra={"parameters": [PREFER, KEY], "requestBody": {"required": True}},
)
async def submit_workflow(
    request: Request,
    dure: DureDep,
    spec: Annotated[Spec, Body(openapi_examples=EXAMPLES)] = _UNREAD,
    force: Annotated[bool, Query(description="Submit tasks that no worker has announced too.")] = False,
) -> Response:
    """Checks the whole, then commits every node and every need as a row, or nothing; 202 with the workflow."""
    force = is_true(request.query_params.get("force"))
    given = await read_json(request, dure.settings.body_limit)
    draft = await dure.draft_workflow(given, force=force)
    key = key_of(request, draft, dure.settings)
    wait = preferred_wait(request.headers.get("prefer"))
    receipt = await dure.accept_workflow(draft, key)
    handle: WorkflowHandle[Any] = WorkflowHandle(dure, cast(Workflow, receipt.workflow))
    told = {"Idempotent-Replayed": "true"} if receipt.replayed else {}
    if wait is not None:
        with suppress(ResultTimeout):
            result = await handle.result(wait)
            view = workflow_view(handle.workflow) | {"result": result}
            return json_response(view, 200, {"Preference-Applied": f"wait={wait:g}", **told})
    shown = handle.workflow if key is None else as_accepted(handle.workflow)
    where = {"Location": f"{request.url.path}/{handle.id}"}
    return json_response(workflow_view(shown), 202, where | RETRY_AFTER | told)
