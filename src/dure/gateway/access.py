"""What a token opens over HTTP: a few paths of its job, workflow or task, each by one right."""

from __future__ import annotations

import time

from starlette.datastructures import QueryParams
from starlette.types import Scope

from dure.gateway.tokens import Grant, Kind, Right

GRANT = "dure.grant"  # in the scope, where a token was shown: the routes look at it too
WEBSOCKET = "/api/v1/ws"  # each message is judged there by itself

_API = "/api/v1"
_FEEDS = f"{_API}/events"
_RECORDS = {Kind.JOB: f"{_API}/jobs/", Kind.WORKFLOW: f"{_API}/workflows/"}
_BELOW = {
    ("GET", ""): Right.WATCH,
    ("GET", "/result"): Right.WATCH,
    ("GET", "/events"): Right.WATCH,
    ("POST", "/cancel"): Right.CANCEL,
}


def grant_of(scope: Scope) -> Grant | None:
    """None for who may do everything: with a key, or where none is asked for."""
    grant: Grant | None = scope.get(GRANT)
    return grant


def opens(grant: Grant, scope: Scope) -> bool:
    if scope["type"] != "http":
        return bool(scope["path"] == WEBSOCKET)
    right = _right_needed(grant, scope["method"], scope["path"], scope)
    return right is not None and grant.allows(right, grant.kind, grant.id, time.time())


def _right_needed(grant: Grant, method: str, path: str, scope: Scope) -> Right | None:
    """The right by which a token for this very thing opens the path; None where no right does."""
    if grant.kind is not Kind.TASK:
        record = _RECORDS[grant.kind] + grant.id
        return _BELOW.get((method, path.removeprefix(record))) if path.startswith(record) else None
    if path == f"{_API}/tasks/{grant.id}":
        return Right.SUBMIT if method in ("GET", "POST") else None
    if path == _FEEDS and method == "GET":
        asked = QueryParams(scope["query_string"]).getlist("task")
        return Right.WATCH if asked == [grant.id] else None
    return None
