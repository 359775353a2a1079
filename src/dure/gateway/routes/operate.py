"""Tasks, queues and workers."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from dure.gateway.dependency import DureDep
from dure.gateway.problems import ProblemRoute
from dure.gateway.render import json_response
from dure.gateway.schemas import Problem, QueueList, TaskList, TaskRecord, WorkerList
from dure.view import node_view, task_view

router = APIRouter(route_class=ProblemRoute)

_ALIVE_SECONDS = 30.0
_AWAY: dict[int | str, dict[str, Any]] = {
    503: {"model": Problem, "description": "Ledger or broker cannot be asked now"}
}


@router.get("/tasks", tags=["tasks"], summary="List tasks", response_model=TaskList, responses=_AWAY)
async def list_tasks(dure: DureDep) -> Response:
    """Every task that a worker has announced."""
    return json_response({"tasks": [task_view(task) for task in await dure.ledger.tasks()]})


@router.get(
    "/tasks/{name}",
    tags=["tasks"],
    summary="Look up a task",
    response_model=TaskRecord,
    responses={404: {"model": Problem, "description": "No worker has announced the task"}, **_AWAY},
)
async def find_task(name: Annotated[str, Path(max_length=255)], dure: DureDep) -> Response:
    return json_response(task_view(await dure.catalogue.require(name)))


@router.get("/queues", tags=["queues"], summary="List queues", response_model=QueueList, responses=_AWAY)
async def list_queues(dure: DureDep) -> Response:
    """Depth and consumers of every queue that a worker listens to or a job was sent to."""
    return json_response({"queues": await dure.link.queues(await dure.ledger.queues())})


@router.get("/workers", tags=["workers"], summary="List workers", response_model=WorkerList, responses=_AWAY)
async def list_workers(dure: DureDep) -> Response:
    """Each worker with what it runs now; one that has been silent for half a minute is not online."""
    nodes, running = await dure.ledger.workers(), await dure.ledger.running()
    silent = time.time() - _ALIVE_SECONDS
    views = [
        node_view(node, running.get(node.hostname, ()), online=node.online and node.heartbeat_at > silent)
        for node in nodes
    ]
    return json_response({"workers": views})
