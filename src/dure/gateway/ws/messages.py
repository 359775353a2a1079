"""What goes over the WebSocket, one JSON text each; docs/asyncapi.yaml is their schema."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from fastapi import Response
from msgspec import UNSET, Raw, Struct, UnsetType

from dure.errors import FieldError, InvalidSubmission
from dure.feed import FeedEvent
from dure.gateway.body import decoded
from dure.gateway.tokens import Kind

Ref = str
_LONGEST_REF = 255
_PLACE = re.compile(r"^(.*?)(?: - at `\$\.?(.*)`)?$", re.DOTALL)


class _Asked(Struct, frozen=True, kw_only=True, tag_field="type"):
    """`ref` is the caller's name for what it asks; each answer has it. `token` opens what the connection's does not."""

    ref: Ref = ""
    token: str | None = None


class Submit(_Asked, frozen=True, kw_only=True, tag="submit"):
    """`rest` is what stands beside: `args`, `kwargs` and options, as in the body over HTTP."""

    task: str
    watch: bool = False
    force: bool = False
    idempotency_key: str | None = None
    rest: dict[str, Any] = {}


class _OfOne(_Asked, frozen=True, kw_only=True):
    job: str | None = None
    workflow: str | None = None

    @property
    def target(self) -> tuple[Kind, str]:
        """Raises InvalidSubmission unless exactly one is given."""
        match self.job, self.workflow:
            case str(job), None:
                return Kind.JOB, job
            case None, str(workflow):
                return Kind.WORKFLOW, workflow
        raise InvalidSubmission([FieldError(("job",), "give either job or workflow")])


class Watch(_OfOne, frozen=True, kw_only=True, tag="watch"):
    after: str | None = None


class Cancel(_OfOne, frozen=True, kw_only=True, tag="cancel"):
    pass


class Unwatch(_Asked, frozen=True, kw_only=True, tag="unwatch"):
    pass


class Ping(_Asked, frozen=True, kw_only=True, tag="ping"):
    pass


Asked = Submit | Watch | Cancel | Unwatch | Ping

_TYPES: dict[str, type[Any]] = {"submit": Submit, "watch": Watch, "cancel": Cancel, "unwatch": Unwatch, "ping": Ping}


class _Told(Struct, frozen=True, tag_field="type", omit_defaults=True):
    pass


class Accepted(_Told, frozen=True, tag="accepted"):
    ref: Ref
    job: dict[str, Any]


class Event(_Told, frozen=True, tag="event"):
    ref: Ref
    id: str
    event: str
    data: dict[str, Any]


class Done(_Told, frozen=True, tag="done"):
    ref: Ref


class Cancelled(_Told, frozen=True, tag="cancelled"):
    ref: Ref
    job: dict[str, Any] | UnsetType = UNSET
    workflow: dict[str, Any] | UnsetType = UNSET


class Pong(_Told, frozen=True, tag="pong"):
    ref: Ref | UnsetType = UNSET


class Error(_Told, frozen=True, tag="error"):
    problem: Raw
    ref: Ref | UnsetType = UNSET


Told = Accepted | Event | Done | Cancelled | Pong | Error

_encode = msgspec.json.Encoder(decimal_format="number").encode


def written(message: Told) -> str:
    return _encode(message).decode()


def event_of(ref: Ref, event: FeedEvent) -> Event:
    return Event(ref, event.id, event.kind.value, event.data)


def error_of(ref: Ref, answer: Response) -> Error:
    """With the problem document that HTTP would have been answered with."""
    return Error(Raw(bytes(answer.body)), ref or UNSET)


def ref_of(value: Any) -> Ref:
    """What an error about a message can be told with, whatever else is wrong with it."""
    ref = value.get("ref") if isinstance(value, dict) else None
    return ref if isinstance(ref, str) and len(ref) <= _LONGEST_REF else ""


def parsed(text: str) -> Any:
    """Raises BodyProblem."""
    return decoded(text)


def read(value: Any) -> Asked:
    """Raises BodyProblem for no message at all, InvalidSubmission for one that does not fit."""
    kind = value.get("type") if isinstance(value, dict) else None
    chosen = _TYPES.get(kind) if isinstance(kind, str) else None
    if chosen is None:
        known = ", ".join(_TYPES)
        raise InvalidSubmission([FieldError(("type",), f"must be one of {known}")])
    own = {name for name in chosen.__struct_fields__ if name != "rest"} | {"type"}
    rest = {name: given for name, given in value.items() if name not in own}
    if chosen is not Submit and rest:
        raise InvalidSubmission([FieldError((name,), f"is not a field of {kind}") for name in rest])
    if chosen is Submit:
        value = {name: given for name, given in value.items() if name in own} | {"rest": rest}
    try:
        asked: Asked = msgspec.convert(value, chosen)
    except msgspec.ValidationError as exc:
        raise _misfit(str(exc)) from None
    if len(asked.ref) > _LONGEST_REF or (not asked.ref and chosen is not Ping):
        raise InvalidSubmission([FieldError(("ref",), f"must have 1 to {_LONGEST_REF} characters")])
    return asked


def _misfit(message: str) -> InvalidSubmission:
    found = _PLACE.match(message)
    text, place = (found[1], found[2]) if found else (message, None)
    missing = re.search(r"missing required field `(\w+)`", text)
    name = missing[1] if missing else place
    return InvalidSubmission([FieldError((name,) if name else ("body",), text)])
