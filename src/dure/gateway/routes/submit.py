"""Submitting: one task by its name, or a list of jobs as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from dure.client import Submission
from dure.client.flows import FlowDraft
from dure.errors import FieldError, InvalidSubmission, UnknownTask
from dure.gateway.access import grant_of
from dure.gateway.body import read_json
from dure.gateway.dependency import DureDep
from dure.gateway.lean import LeanRoute
from dure.gateway.render import json_response
from dure.gateway.results import result_response
from dure.gateway.schemas import JobList, JobRecord, Problem, SubmittedRecord
from dure.gateway.submit import (
    as_accepted,
    idempotency_of,
    is_true,
    placed,
    preferred_wait,
    read_batch,
    read_submission,
    require_plain,
    token_for,
)
from dure.gateway.tokens import tokens_of
from dure.job import Job
from dure.ledger import Idempotency, Receipt
from dure.settings import Settings
from dure.view import job_view

router = APIRouter(route_class=LeanRoute, tags=["submit"])

KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "1 to 255 printable characters that name this request; a repeat is answered alike.",
    "schema": {"type": "string"},
}
PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=5` waits up to five seconds for the end.",
    "schema": {"type": "string"},
}
REPLAYED = {
    "Idempotent-Replayed": {
        "description": "`true` for a repeat of a request that was made before.",
        "schema": {"type": "string"},
    },
}
_TOLD = REPLAYED | {
    "Dure-Unique": {
        "description": "`held` where a job that holds the unique key is answered with, and no new one was made.",
        "schema": {"type": "string"},
    },
}
_LOCATION = {"Location": {"description": "The record of the job.", "schema": {"type": "string"}}}

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON"},
    404: {"model": Problem, "description": "No worker has announced the task"},
    413: {"model": Problem, "description": "The body is too large"},
    415: {"model": Problem, "description": "The body is not said to be JSON"},
    422: {"model": Problem, "description": "Arguments or options do not fit, or the key belongs to another request"},
    503: {"model": Problem, "description": "The ledger cannot be used now"},
}


@router.post(
    "/tasks/{name}",
    status_code=202,
    summary="Submit a job",
    responses={
        200: {"model": JobRecord, "description": "Ended within `Prefer: wait=N`", "headers": _TOLD},
        202: {"model": SubmittedRecord, "description": "Accepted: the row is committed", "headers": _LOCATION | _TOLD},
        500: {"model": Problem, "description": "Failed within `Prefer: wait=N`"},
        **REFUSALS,
    },
    openapi_extra={
        "parameters": [PREFER, KEY],
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
    if grant_of(request.scope) is not None:
        require_plain(submission)
    draft = await dure.draft(submission)
    key = key_of(request, [submission], dure.settings)
    wait = preferred_wait(request.headers.get("prefer"))
    if wait is None:
        receipt = await dure.accept([draft], key)
        return _accepted(request, receipt, _shown(receipt.jobs[0], key))
    await dure.waiting.listen()
    receipt = await dure.accept([draft], key)
    ended = await dure.waiting.wait(receipt.jobs[0], wait)
    if ended is None:
        return _accepted(request, receipt, _shown(await dure.job(receipt.jobs[0].id), key))
    headers = {"Preference-Applied": f"wait={wait:g}", **_told_of(receipt)}
    return result_response(ended, json_response(job_view(ended), 200, headers))


@router.post(
    "/jobs",
    status_code=202,
    summary="Submit several jobs as one",
    responses={
        202: {"model": JobList, "description": "Accepted: all rows are committed", "headers": _TOLD},
        **REFUSALS,
    },
    openapi_extra={
        "parameters": [KEY],
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
        },
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
    drafts, errors = [], []
    for position, submission in enumerate(submissions):
        try:
            drafts.append(await dure.draft(submission))
        except InvalidSubmission as exc:
            errors += placed(position, exc.errors)
        except UnknownTask as exc:
            errors.append(FieldError((position, "task"), str(exc)))
    if errors:
        raise InvalidSubmission(errors)
    key = key_of(request, submissions, dure.settings)
    receipt = await dure.accept(drafts, key)
    return json_response({"jobs": [job_view(_shown(job, key)) for job in receipt.jobs]}, 202, _told_of(receipt))


def _accepted(request: Request, receipt: Receipt, job: Job) -> Response:
    headers = {"Location": _job_path(request, job.id), **_told_of(receipt)}
    view = job_view(job)
    if (grant := grant_of(request.scope)) is not None:
        view |= token_for(grant, job.id, tokens_of(request.scope, request.app.state.dure.settings))
    return json_response(view, 202, headers)


def key_of(request: Request, asked: Sequence[Submission] | FlowDraft, settings: Settings) -> Idempotency | None:
    """Raises InvalidSubmission, which names the header."""
    try:
        return idempotency_of(request, asked, settings)
    except InvalidSubmission as exc:
        raise InvalidSubmission([FieldError(("Idempotency-Key",), e.message) for e in exc.errors]) from None


def _shown(job: Job, key: Idempotency | None) -> Job:
    """With an idempotency key the first answer too, for the job may be an older one that holds the unique key."""
    return job if key is None else as_accepted(job)


def _told_of(receipt: Receipt) -> dict[str, str]:
    """What tells a caller that nothing new was made."""
    if receipt.replayed:
        return {"Idempotent-Replayed": "true"}
    return {} if len(receipt.created) == len(receipt.jobs) else {"Dure-Unique": "held"}


def _job_path(request: Request, job_id: str) -> str:
    """`…/api/v1/jobs/{id}` beside the route that was called, wherever it is mounted."""
    base = request.scope.get("root_path", "") + request.url.path.removeprefix(request.scope.get("root_path", ""))
    return f"{base.rpartition('/tasks/')[0]}/jobs/{job_id}"
