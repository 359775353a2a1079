"""What a request asks to submit: an envelope with `args`, `kwargs` and options, or the named arguments themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request

from dure.client import Submission
from dure.client.catalogue import Catalogue
from dure.client.flows import FlowDraft
from dure.client.once import idempotency
from dure.errors import FieldError, InvalidSubmission
from dure.gateway.tokens import Grant, Tokens
from dure.job import Job, State
from dure.ledger import Idempotency
from dure.options import OPTION_NAMES
from dure.settings import Settings

ENVELOPE = OPTION_NAMES | {"args", "kwargs"}
_QUERY = (OPTION_NAMES - {"tags"}) | {"tag", "force"}
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", re.IGNORECASE)
_LONGEST_WAIT = 60.0
_AS_SUBMITTED = (
    *("id", "task", "args", "kwargs", "queue", "priority", "retries", "time_limit", "tags", "origin"),
    *("retry_of", "unique_key", "created_at", "eta", "expires"),
)


def preferred_wait(prefer: str | None) -> float | None:
    """The seconds of `Prefer: wait=N` (RFC 7240), at most a minute."""
    found = _WAIT.search(prefer or "")
    return min(float(found[1]), _LONGEST_WAIT) if found else None


def idempotency_of(request: Request, asked: Sequence[Submission] | FlowDraft, settings: Settings) -> Idempotency | None:
    """From the header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), with or without its quotes."""
    key = request.headers.get("idempotency-key")
    if key is not None and len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    return idempotency(key, asked, settings.idempotency_ttl)


def as_accepted(job: Job) -> Job:
    """The record as it was when it was accepted, so that a repeated request is answered alike."""
    scheduled = job.eta is not None and job.eta > job.created_at
    return Job(
        **{name: getattr(job, name) for name in _AS_SUBMITTED},
        state=State.SCHEDULED if scheduled else State.ACCEPTED,
        changed_at=job.created_at,
    )


async def read_submission(name: str, body: Any, query: QueryParams, catalogue: Catalogue) -> Submission:
    """Raises UnknownTask, and InvalidSubmission for what does not even have the form of one."""
    options, force = _from_query(query) if query else ({}, False)
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise InvalidSubmission([FieldError(("body",), "must be an object")])
    task = await (catalogue.find if force else catalogue.require)(name)
    parameters = catalogue.check(task).parameters if task is not None and task.arguments is not None else None
    if _is_envelope(body, parameters):
        return envelope(name, body, options, force=force)
    return Submission(task=name, kwargs=body, options=options, force=force, named=True)


def require_plain(submission: Submission) -> None:
    """Who has a token chooses the arguments and nothing else: a queue or a unique key may lead to what is others'."""
    wrong = [*submission.options, *(["force"] if submission.force else [])]
    if wrong:
        raise InvalidSubmission([FieldError((name,), "cannot be chosen with a token") for name in wrong])


def token_for(grant: Grant, job_id: str, tokens: Tokens) -> dict[str, Any]:
    """What the receipt of a submission with a token has beside the job's record."""
    minted = tokens.mint_for_job(grant, job_id)
    return {"token": minted.token, "token_expires_at": datetime.fromtimestamp(minted.expires_at, UTC)}


def envelope(
    name: str, body: Mapping[str, Any], options: Mapping[str, Any] | None = None, *, force: bool = False
) -> Submission:
    args, kwargs = body.get("args"), body.get("kwargs")
    errors = [FieldError((key,), "is not a field of a submission") for key in body if key not in ENVELOPE]
    if args is not None and not isinstance(args, list):
        errors.append(FieldError(("args",), "must be a list"))
    if kwargs is not None and not isinstance(kwargs, dict):
        errors.append(FieldError(("kwargs",), "must be an object"))
    if errors:
        raise InvalidSubmission(errors)
    beside = {key: value for key, value in body.items() if key in OPTION_NAMES}
    return Submission(
        task=name, args=args or (), kwargs=kwargs or {}, options={**beside, **(options or {})}, force=force
    )


def read_batch(body: Any, *, force: bool) -> list[Submission]:
    """The submissions of `POST /api/v1/jobs`; every complaint begins with its place in the list."""
    if not isinstance(body, list):
        raise InvalidSubmission([FieldError(("body",), "must be a list of submissions")])
    submissions, errors = [], []
    for position, item in enumerate(body):
        if not isinstance(item, dict) or not isinstance(item.get("task"), str):
            errors.append(FieldError((position, "task"), "each submission names its task"))
            continue
        rest = {key: value for key, value in item.items() if key != "task"}
        try:
            submissions.append(envelope(item["task"], rest, force=force))
        except InvalidSubmission as exc:
            errors += placed(position, exc.errors)
    if errors:
        raise InvalidSubmission(errors)
    return submissions


def placed(position: int, errors: Sequence[FieldError]) -> list[FieldError]:
    return [FieldError((position, *error.loc), error.message) for error in errors]


def _is_envelope(body: Mapping[str, Any], parameters: frozenset[str] | None) -> bool:
    if parameters is None:
        return True
    if {"args", "kwargs"} & body.keys() - parameters:
        return True
    return bool(body) and body.keys() <= ENVELOPE and not body.keys() & parameters


def _from_query(query: QueryParams) -> tuple[dict[str, Any], bool]:
    unknown = [key for key in query if key not in _QUERY]
    if unknown:
        raise InvalidSubmission([FieldError((key,), "is not an option of a submission") for key in unknown])
    options: dict[str, Any] = {key: value for key, value in query.items() if key not in ("tag", "force")}
    tags = query.getlist("tag")
    if tags:
        options["tags"] = tags
    return options, is_true(query.get("force"))


def is_true(value: str | None) -> bool:
    if value is None or value.lower() in ("false", "0", "no"):
        return False
    if value.lower() in ("", "true", "1", "yes"):
        return True
    raise InvalidSubmission([FieldError(("force",), "must be true or false")])
