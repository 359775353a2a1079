"""Cancelling jobs, and sending ended ones again."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dure.client import Dure, Edits
from dure.errors import FieldError, InvalidSubmission
from dure.gateway.body import read_json
from dure.gateway.dependency import DureDep
from dure.gateway.problems import ProblemRoute, read_errors
from dure.gateway.render import json_response
from dure.gateway.routes.filters import Filter, job_filter
from dure.gateway.routes.jobs import AWAY, UNKNOWN, JobId
from dure.gateway.schemas import JobRecord, Matched, Problem, ResentRecord
from dure.job import State
from dure.ledger import JobFilter
from dure.options import OPTION_NAMES, SubmitOptions
from dure.view import job_view, resent_view

router = APIRouter(route_class=ProblemRoute, tags=["jobs"])

Body = TypeVar("Body", bound=BaseModel)

_Responses = dict[int | str, dict[str, Any]]

BODY: _Responses = {
    400: {"model": Problem, "description": "The body is not JSON"},
    413: {"model": Problem, "description": "The body is too large"},
    415: {"model": Problem, "description": "The body is not said to be JSON"},
    422: {"model": Problem, "description": "Arguments, options or the filter do not fit"},
}
_LOCATION = {"Location": {"description": "The record of the new job.", "schema": {"type": "string"}}}
MANY: _Responses = {
    200: {"model": Matched, "description": "A dry run: what matches now, and the oldest of it"},
    202: {"model": ResentRecord, "description": "Sent again: the rows of the new jobs are committed"},
    **BODY,
    **AWAY,
}


class Again(BaseModel):
    """What is changed of a job that is sent again. The options of a submission stand beside these."""

    model_config = ConfigDict(extra="forbid")

    args: list[Any] | None = Field(None, description="In place of all positional arguments.")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Each in place of the named argument.")


class ManyAgain(Again):
    """Which of the jobs that are meant are sent again, and how fast."""

    dry_run: bool = Field(False, description="Only tell what would be sent again.")
    rate: float | None = Field(
        None,
        ge=0.001,
        le=1_000_000,
        description="Jobs a second, the later ones as scheduled jobs; all at once if not said.",
    )
    limit: int = Field(1000, ge=1, le=10_000, description="Most jobs, the oldest first.")


class FilteredAgain(ManyAgain):
    filter: Filter = Field(description="Which jobs; `{}` is every one that has ended FAILURE.")


def with_options(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a body: the model's fields and a submission's options."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, about in schema.pop("$defs", {}).items():
        if name == Filter.__name__:
            schema["properties"]["filter"] = about | {"description": schema["properties"]["filter"]["description"]}
    schema["properties"] |= SubmitOptions.model_json_schema()["properties"]
    return {"required": "required" in schema, "content": {"application/json": {"schema": schema}}}


@router.post(
    "/jobs/{job_id}/cancel",
    summary="Cancel a job",
    responses={
        200: {"model": JobRecord, "description": "REVOKED: no worker will begin it"},
        202: {"model": JobRecord, "description": "It runs, and its worker was asked to end it"},
        409: {"model": Problem, "description": "It has ended otherwise"},
        **UNKNOWN,
        **AWAY,
    },
)
async def cancel(job_id: JobId, dure: DureDep) -> Response:
    """A job that nobody has begun never runs. One that runs is ended where its worker's pool can."""
    job = await dure.cancel(job_id)
    return json_response(job_view(job), 200 if job.state is State.REVOKED else 202)


@router.post(
    "/jobs/retry",
    status_code=202,
    summary="Send jobs again",
    responses=MANY,
    openapi_extra={"requestBody": with_options(FilteredAgain)},
)
async def retry_many(request: Request, dure: DureDep) -> Response:
    """Those that match, have ended FAILURE (or the state that the filter names) and were not sent again yet."""
    body, edits = await read_again(request, dure, FilteredAgain)
    return await resend(dure, job_filter(body.filter), edits, body)


@router.post(
    "/jobs/{job_id}/retry",
    status_code=202,
    summary="Send a job again",
    responses={
        202: {"model": JobRecord, "description": "Accepted: the row of the new job is committed", "headers": _LOCATION},
        409: {"model": Problem, "description": "The job has not ended"},
        **UNKNOWN,
        **BODY,
        **AWAY,
    },
    openapi_extra={"requestBody": with_options(Again)},
)
async def retry(job_id: JobId, request: Request, dure: DureDep) -> Response:
    """As a new job, which names this one in `retry_of`; asked twice, it is sent once while the new job is open."""
    _, edits = await read_again(request, dure, Again)
    new = (await dure.retry(job_id, edits)).job
    beside = request.url.path.removesuffix(f"/{job_id}/retry")
    return json_response(job_view(new), 202, {"Location": f"{beside}/{new.id}"})


async def read_again(request: Request, dure: Dure, model: type[Body]) -> tuple[Body, Edits]:
    """Raises BodyProblem, or InvalidSubmission that names each field that does not fit."""
    given = await read_json(request, dure.settings.body_limit)
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise InvalidSubmission([FieldError(("body",), "must be an object")])
    options = {name: value for name, value in given.items() if name in OPTION_NAMES}
    try:
        body = model.model_validate({name: value for name, value in given.items() if name not in options})
    except ValidationError as exc:
        raise InvalidSubmission(read_errors(exc.errors())) from None
    return body, Edits(args=body.args, kwargs=body.kwargs, options=options)  # type: ignore[attr-defined]


async def resend(dure: Dure, wanted: JobFilter, edits: Edits, body: ManyAgain) -> Response:
    resent = await dure.retry_many(wanted, edits, rate=body.rate, limit=body.limit, dry_run=body.dry_run)
    return json_response(resent_view(resent), 200 if resent.dry_run else 202)
