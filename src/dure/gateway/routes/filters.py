"""Which jobs are meant: the parameters of a list, and the `filter` of a body, are one model."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from dure.job import Reason, State
from dure.ledger import JobFilter
from dure.options import Moment

Words = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]


def _with_offset(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment needs an offset, such as Z or +09:00")
    return moment


When = Annotated[Moment, AfterValidator(_with_offset)]


class Period(BaseModel):
    # An unknown name is refused: passed over, a misspelt filter would choose everything.
    model_config = ConfigDict(extra="forbid")

    since: When | None = Field(None, description="Created at this time or later.")
    until: When | None = Field(None, description="Created before this time.")


class Filter(Period):
    """Several are all to hold; none at all is every job."""

    state: State | None = None
    reason: Reason | None = Field(None, description="Why the job ended FAILURE or REVOKED.")
    fingerprint: Words | None = Field(None, description="Jobs that failed alike have the same.")
    dead: bool = Field(False, description="Only dead letters.")
    retried: bool | None = Field(None, description="Only jobs that were sent again, or only those that were not.")
    task: Words | None = None
    queue: Words | None = None
    worker: Words | None = None
    tag: Words | None = None
    workflow: Words | None = Field(None, description="Nodes of this workflow, also those that another has replaced.")
    text: Words | None = Field(None, description="Looked for in the arguments, in any case.")


class Listing(Filter):
    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = Field(None, max_length=64, description="`next` of the page before.")


class DeadListing(Period):
    task: Words | None = None
    queue: Words | None = None
    reason: Reason | None = Field(None, description="Why the jobs ended.")
    limit: int = Field(100, ge=1, le=500, description="Most groups.")


def job_filter(chosen: Period) -> JobFilter:
    given = chosen.model_dump(exclude={"limit", "cursor"})
    for name in ("since", "until"):
        given[name] = None if given[name] is None else given[name].timestamp()
    return JobFilter(**given)
