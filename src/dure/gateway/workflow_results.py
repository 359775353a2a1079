"""How a workflow's end is answered: 200 done, 202 not yet, 500 failed."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from dure.client.flow_handle import WorkflowHandle
from dure.gateway.render import json_response
from dure.job import State
from dure.workflow import Workflow

RETRY_AFTER = {"Retry-After": "1"}
_AS_SUBMITTED = ("id", "name", "timeout", "deadline", "origin", "created_at")


async def result_response(handle: WorkflowHandle[Any]) -> Response:
    """Of the record that the handle holds. Raises WorkflowFailed."""
    workflow = handle.workflow
    if not workflow.state.final:
        return json_response({"id": workflow.id, "state": workflow.state}, 202, RETRY_AFTER)
    return json_response({"id": workflow.id, "state": workflow.state, "result": await handle.result()})


def as_accepted(workflow: Workflow) -> Workflow:
    """The record as it was when it was accepted, so that a repeated request is answered alike."""
    kept = {name: getattr(workflow, name) for name in _AS_SUBMITTED}
    return Workflow(**kept, state=State.STARTED, changed_at=workflow.created_at)
