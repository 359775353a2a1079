"""Making tokens for browsers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, Self

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dure.client import Dure
from dure.errors import FieldError, InvalidSubmission
from dure.gateway.body import read_json
from dure.gateway.dependency import DureDep
from dure.gateway.problems import ProblemRoute, read_errors
from dure.gateway.render import json_response
from dure.gateway.routes.again import BODY
from dure.gateway.routes.filters import Words
from dure.gateway.schemas import Problem, TokenRecord
from dure.gateway.tokens import Kind, Right, tokens_of

router = APIRouter(route_class=ProblemRoute, tags=["tokens"])


class Wanted(BaseModel):
    """What the token is to open. Exactly one of `job`, `workflow` and `task` is given."""

    model_config = ConfigDict(extra="forbid")

    job: Words | None = None
    workflow: Words | None = None
    task: Words | None = None
    allow: set[Literal["watch", "submit", "cancel"]] | None = Field(
        None, min_length=1, description="`submit` for a task, else `watch`, if not said. Only a task can be submitted."
    )
    expires_in: int = Field(300, ge=1, le=86_400, description="Seconds.")

    @model_validator(mode="after")
    def _is_for_one(self) -> Self:
        given = [kind for kind in Kind if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError("give one of job, workflow and task")
        if "/" in self.name:
            raise ValueError("a token cannot be made for a name with a slash")
        if given[0] is not Kind.TASK and Right.SUBMIT in self.rights:
            raise ValueError("allow: submit is for a task")
        return self

    @property
    def kind(self) -> Kind:
        return next(kind for kind in Kind if getattr(self, kind) is not None)

    @property
    def name(self) -> str:
        name: str = getattr(self, self.kind)
        return name

    @property
    def rights(self) -> set[Right]:
        return set(map(Right, self.allow or ())) or {Right.SUBMIT if self.kind is Kind.TASK else Right.WATCH}


@router.post(
    "/tokens",
    status_code=201,
    summary="Make a token for a browser",
    responses={
        201: {"model": TokenRecord, "description": "Made; nothing of it is kept"},
        404: {"model": Problem, "description": "There is no such job, workflow or task"},
        **BODY,
        503: {"model": Problem, "description": "The ledger cannot be used now, or there is no secret to sign with"},
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": Wanted.model_json_schema(),
                    "example": {"job": "01a1f98b-7484-7370-b8a1-0a1a9dd04f52", "allow": ["watch"], "expires_in": 300},
                }
            },
        }
    },
)
async def make_token(request: Request, dure: DureDep) -> Response:
    """For one job, workflow or task; a page that has it may do what `allow` says, until it expires."""
    wanted = _read(await read_json(request, dure.settings.body_limit))
    await _require(dure, wanted)
    minted = tokens_of(request.scope, dure.settings).mint(wanted.kind, wanted.name, wanted.rights, wanted.expires_in)
    body = {"token": minted.token, "expires_at": datetime.fromtimestamp(minted.expires_at, UTC)}
    return json_response(body, 201, {"Cache-Control": "no-store"})


def _read(body: Any) -> Wanted:
    if not isinstance(body, dict):
        raise InvalidSubmission([FieldError(("body",), "must be an object")])
    try:
        return Wanted.model_validate(body)
    except ValidationError as exc:
        raise InvalidSubmission(read_errors(exc.errors())) from None


async def _require(dure: Dure, wanted: Wanted) -> None:
    """Raises UnknownJob, UnknownWorkflow or UnknownTask: a token for what is not there is a slip of the asker."""
    if wanted.kind is Kind.JOB:
        await dure.job(wanted.name)
    elif wanted.kind is Kind.WORKFLOW:
        await dure.workflow_handle(wanted.name)
    else:
        await dure.catalogue.require(wanted.name)
