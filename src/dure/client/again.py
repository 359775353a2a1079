"""An ended job as it is sent again: as a new job that names the one it repeats.

The new job holds a key of its own while it is open, so that two operators, or one who asks twice, send nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from dure.client.submission import Draft, Submission, plain
from dure.errors import FieldError, InvalidSubmission, JobNotEnded
from dure.job import Job, State, Unique

if TYPE_CHECKING:
    from dure.client.dure import Dure

_KEPT = ("queue", "priority", "retries", "time_limit")


class Edits(Struct, frozen=True, kw_only=True):
    """What is changed of a job that is sent again.

    `args` takes the place of all positions; each of `kwargs` is put over the job's own of that name, also where that
    was given by position; `options` are those of a submission, and what they leave out is as it was, except for
    `eta`, `expires` and the unique key.
    """

    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}


class Skipped(Struct, frozen=True, kw_only=True):
    """A job that could not be sent again, and why."""

    id: str
    error: str


class Resent(Struct, frozen=True, kw_only=True):
    """`matched` jobs could be sent again, or could have been when asking began; `jobs` are the new ones, after a dry
    run the first of those that would be repeated."""

    matched: int
    jobs: tuple[Job, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    dry_run: bool = False


async def draft_again(dure: Dure, job: Job, edits: Edits, later: float = 0.0) -> Draft:
    """`later` is how many seconds after its time the job is to be queued."""
    if not job.state.final:
        raise JobNotEnded(job)
    task = await dure.catalogue.find(job.task) if job.task and edits.kwargs else None
    made = await dure.draft(plain(_submission(job, edits, task.positional if task else ())))
    new = structs.replace(made.job, retry_of=job.id)
    if later:
        due = new.eta if new.state is State.SCHEDULED and new.eta is not None else new.created_at
        new = structs.replace(new, state=State.SCHEDULED, eta=round(due + later, 6))
    # A key of ours has a character in it that no submission's can have.
    return Draft(job=new, unique=made.unique or Unique(key=f"\x1fretry of {job.id}"[:255]))


def _submission(job: Job, edits: Edits, positional: Sequence[str]) -> Submission:
    args, named = job.args if edits.args is None else edits.args, dict(edits.kwargs)
    if edits.args is None and args is not None:
        # What was given by position is changed there, for it cannot be given by name too.
        args = [named.pop(name, old) for name, old in zip_longest(positional[: len(args)], args)]
    if args is None and job.kwargs is None and not edits.kwargs:
        message = f"the arguments of job {job.id} are not known here, for plain Celery code sent it; give them"
        raise InvalidSubmission([FieldError(("args",), message)])
    kept = {name: value for name in _KEPT if (value := getattr(job, name)) is not None}
    return Submission(
        task=job.task or "",
        args=list(args or ()),
        kwargs={**(job.kwargs or {}), **named},
        options={**kept, "tags": list(job.tags), **edits.options},
        # The task is known by name; that no worker announces it now may be why the job failed.
        force=True,
    )
