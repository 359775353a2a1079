"""From what a caller asks for to a job: known task, right arguments, fitting options."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_DEEPEST_PLACE = 20  # what is wrong in a value that holds itself has no innermost place


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
    """With Python arguments as JSON values. Raises InvalidSubmission, as `as_json` does."""
    whole = as_json({"args": list(submission.args), "kwargs": dict(submission.kwargs)})
    return structs.replace(submission, args=whole["args"], kwargs=whole["kwargs"])


def as_json(value: Any, place: tuple[str | int, ...] = ()) -> Any:
    """Python values as JSON has them: dataclasses, models, dates and the like are turned, NaN is refused.

    Raises InvalidSubmission with the place of every innermost part that cannot be written.
    """
    try:
        return msgspec.json.decode(json.dumps(to_jsonable_python(value, fallback=_json_of), allow_nan=False))
    except (PydanticSerializationError, msgspec.DecodeError, ValueError, TypeError, RecursionError) as exc:
        within = [] if len(place) > _DEEPEST_PLACE else list(_refused(value, place))
        raise InvalidSubmission(within or [FieldError(place, f"cannot be written as JSON: {exc}")]) from None


def _json_of(value: Any) -> Any:
    """What an object says itself, such as a reference to a node."""
    if not hasattr(type(value), "__json__"):
        raise TypeError(f"{type(value).__qualname__} objects have no JSON form")
    return value.__json__()


def _refused(value: Any, place: tuple[str | int, ...]) -> Iterator[FieldError]:
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    for key, part in parts:
        try:
            as_json(part, (*place, key if isinstance(key, int) else str(key)))
        except InvalidSubmission as exc:
            yield from exc.errors


def _check_name(name: str) -> None:
    if not name or len(name) > _NAME_LIMIT or not name.isprintable():
        raise InvalidSubmission([FieldError(("task",), f"a task's name is 1 to {_NAME_LIMIT} printable characters")])
