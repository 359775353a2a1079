"""The options of a submission, as a caller writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from dure.errors import FieldError, InvalidSubmission
from dure.job import Options, Unique, Until

_YEARS_100 = 100 * 366 * 86_400.0
_NUMBER = re.compile(r"[+-]?[\d._]*(e[+-]?\d+)?", re.IGNORECASE)


def _written(moment: Any) -> Any:
    """A number is no moment: pydantic would take it for seconds since 1970."""
    if isinstance(moment, str) and not _NUMBER.fullmatch(moment.strip()):
        return moment
    if isinstance(moment, datetime):
        return moment
    raise ValueError("a moment is written like 2027-01-15T08:00:00Z")


Moment = Annotated[datetime, BeforeValidator(_written)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
UniqueKey = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
QueueName = Annotated[
    str,
    # What pamqp lets through; a name beyond it could be stored but never published.
    StringConstraints(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9\-_.:@#,/+ ]+$"),
]


class SubmitOptions(BaseModel):
    """How the job is to be run; every option may be left out."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    queue: QueueName | None = Field(None, description="Queue to send to; else the one that the task's worker told.")
    priority: int | None = Field(None, ge=0, le=9, description="0 to 9, higher first.")
    delay: float | None = Field(None, ge=0, le=_YEARS_100, description="Seconds to wait before the job is queued.")
    eta: Moment | None = Field(None, description="When the job is to be queued.")
    expires: Moment | Annotated[float, Field(ge=0, le=_YEARS_100)] | None = Field(
        None, description="When the job is not begun any more: a moment, or seconds from now."
    )
    retries: int | None = Field(None, ge=0, le=1000, description="How often a failed job is tried again.")
    time_limit: float | None = Field(None, gt=0, le=_YEARS_100, description="Most seconds that one attempt may run.")
    tags: list[Tag] = Field(default_factory=list, max_length=32, description="Words to find the job by.")
    unique_key: UniqueKey | None = Field(
        None, description="While a job holds this key, submitting answers with that job instead of making a second."
    )
    unique_until: Literal["started", "finished"] | None = Field(
        None, description="Until when the job holds its unique key; `finished` if not said."
    )
    unique_for: float | None = Field(
        None, gt=0, le=_YEARS_100, description="Seconds that the unique key is held, however the job fares."
    )

    @field_validator("eta", "expires")
    @classmethod
    def _is_a_moment_of_utc(cls, moment: datetime | float | None) -> datetime | float | None:
        if not isinstance(moment, datetime):
            return moment
        if moment.tzinfo is None:
            raise ValueError("a moment needs an offset, such as Z or +09:00")
        try:
            # A message tells it in UTC, to the microsecond; what is stored is a float.
            datetime.fromtimestamp(moment.timestamp(), UTC)
        except (ValueError, OverflowError):
            raise ValueError("the moment is beyond the calendar, which ends with the year 9999 in UTC") from None
        return moment

    @model_validator(mode="after")
    def _one_start(self) -> SubmitOptions:
        if self.delay is not None and self.eta is not None:
            raise ValueError("delay and eta exclude each other")
        return self

    @model_validator(mode="after")
    def _one_scope(self) -> SubmitOptions:
        if self.unique_until is not None and self.unique_for is not None:
            raise ValueError("unique_until and unique_for exclude each other")
        if self.unique_key is None and (self.unique_until is not None or self.unique_for is not None):
            raise ValueError("unique_until and unique_for need a unique_key")
        return self

    def at(self, now: float) -> Options:
        """The options with every moment in seconds since the epoch."""
        eta = None if self.delay is None else now + self.delay
        if self.eta is not None:
            eta = self.eta.timestamp()
        expires = self.expires.timestamp() if isinstance(self.expires, datetime) else self.expires
        if expires is not None and not isinstance(self.expires, datetime):
            expires += now
        return Options(
            queue=self.queue,
            priority=self.priority,
            eta=eta,
            expires=expires,
            retries=self.retries,
            time_limit=self.time_limit,
            tags=tuple(dict.fromkeys(self.tags)),
            unique=self._unique(now),
        )

    def _unique(self, now: float) -> Unique | None:
        if self.unique_key is None:
            return None
        if self.unique_for is not None:
            return Unique(key=self.unique_key, until=Until.TIME, expires_at=now + self.unique_for)
        return Unique(key=self.unique_key, until=Until(self.unique_until or "finished"))


OPTION_NAMES = frozenset(SubmitOptions.model_fields)
_NONE = SubmitOptions().at(0.0)


def read_options(given: Mapping[str, Any], now: float) -> Options:
    """Raises InvalidSubmission naming each wrong option."""
    if not given:
        return _NONE
    try:
        return SubmitOptions.model_validate(given).at(now)
    except ValidationError as exc:
        raise InvalidSubmission([_field_error(error) for error in exc.errors()]) from None


def _field_error(error: Any) -> FieldError:
    loc = tuple(error["loc"]) if error["loc"][:1] == ("tags",) else tuple(error["loc"][:1])
    return FieldError(loc or ("options",), str(error["msg"]).removeprefix("Value error, "))
