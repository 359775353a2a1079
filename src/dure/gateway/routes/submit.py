"""Submitting: one task by its name, or a list of jobs as one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from dure.client.submission import make_job
from dure.errors import FieldError, InvalidSubmission, UnknownTask
from dure.gateway.body import read_json
from dure.gateway.dependency import DureDep
from dure.gateway.lean import LeanRoute
from dure.gateway.render import json_response
from dure.gateway.results import result_response
from dure.gateway.schemas import JobList, JobRecord, Problem
from dure.gateway.submit import is_true, placed, preferred_wait, read_batch, read_submission
from dure.job import Job
from dure.view import job_view

router = APIRouter(route_class=LeanRoute, tags=["submit"])

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON"},
    404: {"model": Problem, "description": "No worker has announced the task"},
    413: {"model": Problem, "description": "The body is too large"},
    415: {"model": Problem, "description": "The body is not said to be JSON"},
    422: {"model": Problem, "description": "Arguments or options do not fit"},
    503: {"model": Problem, "description": "The ledger cannot be used now"},
}


@router.post(
    "/tasks/{name}",
    status_code=202,
    summary="Submit a job",
    responses={
        200: {"model": JobRecord, "description": "Ended within `Prefer: wait=N`"},
        202: {"model": JobRecord, "description": "Accepted: the row is committed"},
        500: {"model": Problem, "description": "Failed within `Prefer: wait=N`"},
        **REFUSALS,
    },
    openapi_extra={
        "parameters": [
            {
                "name": "Prefer",
                "in": "header",
                "description": "`wait=5` waits up to five seconds for the end.",
                "schema": {"type": "string"},
            },
        ],
        "requestBody": {
            "description": "`args`, `kwargs` and options; or the named arguments themselves, where they are known",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
    },
)
async def submit(name: Annotated[str, Path(max_length=255)], request: Request, dure: DureDep) -> Response:
    """Commits a row and answers 202 with the job; the message is published at once, or when the broker is back."""
    body = await read_json(request, dure.settings.body_limit)
    submission = await read_submission(name, body, request.query_params, dure.catalogue)
    job = await make_job(submission, dure.catalogue, dure.settings.default_queue)
    wait = preferred_wait(request.headers.get("prefer"))
    if wait is None:
        await dure.accept([job])
        return _accepted(request, job)
    await dure.waiting.listen()
    await dure.accept([job])
    ended = await dure.waiting.wait(job, wait)
    if ended is None:
        return _accepted(request, await dure.job(job.id))
    return result_response(ended, json_response(job_view(ended), 200, {"Preference-Applied": f"wait={wait:g}"}))


@router.post(
    "/jobs",
    status_code=202,
    summary="Submit several jobs as one",
    responses={202: {"model": JobList, "description": "Accepted: all rows are committed"}, **REFUSALS},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["task"],
                            "properties": {
                                "task": {"type": "string"},
                                "args": {"type": "array"},
                                "kwargs": {"type": "object"},
                            },
                        },
                    }
                }
            },
        }
    },
)
async def submit_many(
    request: Request,
    dure: DureDep,
    force: Annotated[bool, Query(description="Submit tasks that no worker has announced too.")] = False,
) -> Response:
    """Commits all rows or none."""
    force = is_true(request.query_params.get("force"))
    submissions = read_batch(await read_json(request, dure.settings.body_limit), force=force)
    jobs, errors = [], []
    for position, submission in enumerate(submissions):
        try:
            jobs.append(await make_job(submission, dure.catalogue, dure.settings.default_queue))
        except InvalidSubmission as exc:
            errors += placed(position, exc.errors)
        except UnknownTask as exc:
            errors.append(FieldError((position, "task"), str(exc)))
    if errors:
        raise InvalidSubmission(errors)
    await dure.accept(jobs)
    return json_response({"jobs": [job_view(job) for job in jobs]}, 202)


def _accepted(request: Request, job: Job) -> Response:
    return json_response(job_view(job), 202, {"Location": _job_path(request, job.id)})


def _job_path(request: Request, job_id: str) -> str:
    """`…/api/v1/jobs/{id}` beside the route that was called, wherever it is mounted."""
    base = request.scope.get("root_path", "") + request.url.path.removeprefix(request.scope.get("root_path", ""))
    return f"{base.rpartition('/tasks/')[0]}/jobs/{job_id}"
