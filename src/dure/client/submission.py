"""From what a caller asks for to a job: known task, right arguments, fitting options."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs
from pydantic_core import PydanticSerializationError, to_jsonable_python
from uuid_utils import uuid7

from dure.client.catalogue import Catalogue
from dure.errors import FieldError, InvalidSubmission
from dure.job import Job, State, Unique
from dure.options import read_options

_NAME_LIMIT = 255


class Submission(Struct, frozen=True, kw_only=True):
    """One thing to submit; `named` says that `kwargs` were the whole body of a request."""

    task: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
    force: bool = False
    named: bool = False


class Draft(Struct, frozen=True, kw_only=True):
    """A job that is not accepted yet, with the key that it wants for itself."""

    job: Job
    unique: Unique | None = None


async def draft(submission: Submission, catalogue: Catalogue, default_queue: str) -> Draft:
    """Arguments are JSON values here. Raises UnknownTask or InvalidSubmission; nothing is written yet."""
    now = round(time.time(), 6)  # what ISO 8601 shows, so that a time that was read can be asked for again
    if submission.force:
        _check_name(submission.task)
        task = await catalogue.find(submission.task)
    else:
        task = await catalogue.require(submission.task)
    options = read_options(submission.options, now)
    if task is not None:
        catalogue.check(task).check(submission.args, submission.kwargs, named=submission.named)
    job = Job(
        id=str(uuid7()),
        task=submission.task,
        state=State.SCHEDULED if options.eta is not None and options.eta > now else State.ACCEPTED,
        args=list(submission.args),
        kwargs=dict(submission.kwargs),
        queue=options.queue or (task.queue if task else None) or default_queue,
        priority=options.priority,
        retries=options.retries,
        time_limit=options.time_limit,
        tags=options.tags,
        created_at=now,
        changed_at=now,
        eta=options.eta,
        expires=options.expires,
        unique_key=options.unique.key if options.unique else None,
    )
    return Draft(job=job, unique=options.unique)


def plain(submission: Submission) -> Submission:
    """With Python arguments as JSON values: dataclasses, models, dates and the like are turned, NaN is refused."""
    errors = []
    turned: dict[str | int, Any] = {}
    items: list[tuple[str | int, Any]] = [*enumerate(submission.args), *submission.kwargs.items()]
    for key, value in items:
        try:
            turned[key] = msgspec.json.decode(json.dumps(to_jsonable_python(value), allow_nan=False))
        except (PydanticSerializationError, msgspec.DecodeError, ValueError, TypeError, RecursionError) as exc:
            place = ("args" if isinstance(key, int) else "kwargs", key)
            errors.append(FieldError(place, f"cannot be written as JSON: {exc}"))
    if errors:
        raise InvalidSubmission(errors)
    return structs.replace(
        submission,
        args=[turned[position] for position in range(len(submission.args))],
        kwargs={name: turned[name] for name in submission.kwargs},
    )


def _check_name(name: str) -> None:
    if not name or len(name) > _NAME_LIMIT or not name.isprintable():
        raise InvalidSubmission([FieldError(("task",), f"a task's name is 1 to {_NAME_LIMIT} printable characters")])
