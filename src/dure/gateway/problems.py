"""Errors as RFC 9457 problem documents.

Each `type` is a URN whose last word says what is wrong; docs/http.md lists them. A route class turns every DureError
into its problem, so the same holds where the routes are mounted in somebody else's application.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import singledispatch
from typing import Any

import msgspec
import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from dure.errors import (
    DureError,
    FieldError,
    IdempotencyConflict,
    InvalidCursor,
    InvalidSubmission,
    JobEnded,
    JobFailed,
    JobNotEnded,
    LedgerUnavailable,
    LinkError,
    UnknownJob,
    UnknownNode,
    UnknownTask,
    UnknownWorkflow,
    WorkflowEnded,
    WorkflowFailed,
    WorkflowNotEnded,
)
from dure.gateway.tokens import InvalidToken, NoTokenSecret, NotOpened
from dure.workflow import Workflow

log = structlog.get_logger("dure")

_URN = "urn:dure:problem:"
_RETRY_AFTER = {"Retry-After": "1"}
_WHOLE = ("body",)


def problem(
    status: int, kind: str, title: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    body = {"type": _URN + kind, "title": title, "status": status, "detail": detail} | more
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")


class BodyProblem(DureError):
    """The request's body cannot be used: 400, 413 or 415."""

    def __init__(self, status: int, kind: str, title: str, detail: str) -> None:
        self.status, self.kind, self.title, self.detail = status, kind, title, detail
        super().__init__(detail)


@singledispatch
def answer(exc: Exception) -> Response:
    """The problem document of an error."""
    log.error("a request failed in a way that was not foreseen", error=repr(exc), exc_info=exc)
    return problem(500, "internal", "Internal error", "the gateway failed; its log says more")


@answer.register
def _(exc: BodyProblem) -> Response:
    return problem(exc.status, exc.kind, exc.title, exc.detail)


@answer.register
def _(exc: InvalidSubmission) -> Response:
    return invalid(exc.errors)


@answer.register
def _(exc: RequestValidationError) -> Response:
    return invalid(read_errors(exc.errors(), 1))


@answer.register
def _(exc: InvalidCursor) -> Response:
    return invalid([FieldError(("cursor",), str(exc))])


@answer.register
def _(exc: InvalidToken) -> Response:
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    detail = f"{exc}; ask POST /api/v1/tokens for a new one"
    return problem(401, "invalid-token", "The token cannot be used", detail, headers=headers)


@answer.register
def _(exc: NotOpened) -> Response:
    return problem(403, "not-opened", "The token does not open this", str(exc))


@answer.register
def _(exc: NoTokenSecret) -> Response:
    log.warning("no token can be made", error=str(exc))
    return problem(503, "no-token-secret", "No token can be made", "set DURE_TOKEN_SECRET; the gateway's log says more")


def read_errors(errors: Iterable[Any], skip: int = 0) -> list[FieldError]:
    """What pydantic found; `skip` parts at the beginning of each place are its own."""
    return [
        FieldError(
            tuple(error["loc"][skip:]) or ("request",),
            "is not known here" if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, "),
        )
        for error in errors
    ]


def invalid(errors: Sequence[FieldError]) -> Response:
    listed = [{"loc": list(error.loc or _WHOLE), "message": error.message} for error in errors]
    first = errors[0]
    detail = f"{'.'.join(map(str, first.loc or _WHOLE))}: {first.message}"
    if len(errors) > 1:
        detail += f" (and {len(errors) - 1} more)"
    return problem(422, "invalid", "The request does not fit", detail, errors=listed)


@answer.register
def _(exc: UnknownTask) -> Response:
    detail = f"{exc}. With ?force=true it is submitted by name all the same."
    return problem(404, "unknown-task", "Unknown task", detail, near=list(exc.near))


@answer.register
def _(exc: UnknownJob) -> Response:
    return problem(404, "unknown-job", "Unknown job", str(exc))


@answer.register
def _(exc: JobEnded) -> Response:
    job = exc.job
    return problem(
        409, "job-ended", "The job has ended", str(exc), job=job.id, state=job.state, reason=job.reason, error=job.error
    )


@answer.register
def _(exc: JobNotEnded) -> Response:
    return problem(409, "job-not-ended", "The job has not ended", str(exc), job=exc.job.id, state=exc.job.state)


@answer.register
def _(exc: UnknownWorkflow) -> Response:
    return problem(404, "unknown-workflow", "Unknown workflow", str(exc))


@answer.register
def _(exc: UnknownNode) -> Response:
    return problem(404, "unknown-node", "Unknown node", str(exc), workflow=exc.workflow_id, node=exc.node)


@answer.register
def _(exc: WorkflowEnded) -> Response:
    return problem(409, "workflow-ended", "The workflow has ended", str(exc), **_of(exc.workflow))


@answer.register
def _(exc: WorkflowNotEnded) -> Response:
    return problem(409, "workflow-not-ended", "The workflow has not ended", str(exc), **_of(exc.workflow))


@answer.register
def _(exc: WorkflowFailed) -> Response:
    told = _of(exc.workflow)
    if exc.job is not None:
        told |= {"node": exc.job.node, "job": exc.job.id, "error": exc.job.error}
    return problem(500, "workflow-failed", "The workflow failed", str(exc), **told)


def _of(workflow: Workflow) -> dict[str, Any]:
    return {"workflow": workflow.id, "state": workflow.state, "reason": workflow.reason}


@answer.register
def _(exc: IdempotencyConflict) -> Response:
    return problem(422, "idempotency-conflict", "The idempotency key belongs to another request", str(exc))


@answer.register
def _(exc: JobFailed) -> Response:
    job = exc.job
    return problem(
        500, "job-failed", "The job failed", str(exc), job=job.id, state=job.state, reason=job.reason, error=job.error
    )


@answer.register
def _(exc: LedgerUnavailable) -> Response:
    log.warning("the ledger is away", error=exc.detail)
    return problem(503, "ledger-unavailable", "The ledger cannot be used now", "try again soon", headers=_RETRY_AFTER)


@answer.register
def _(exc: LinkError) -> Response:
    log.warning("the broker is away", error=str(exc))
    return problem(503, "broker-unavailable", "The broker cannot be asked now", "try again soon", headers=_RETRY_AFTER)


class ProblemRoute(APIRoute):
    """A route whose errors are problem documents. `allowed` are the methods of all routes with its path."""

    allowed: frozenset[str] = frozenset()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().handle(scope, receive, send)
        except HTTPException as exc:
            if exc.status_code != 405 or not self.allowed:
                raise
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self.allowed))}) from None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_or_answer(request: Request) -> Response:
            try:
                return await handle(request)
            except (DureError, RequestValidationError) as exc:
                return answer(exc)

        return handle_or_answer
