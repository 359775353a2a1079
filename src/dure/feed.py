"""What a reader of a feed gets, whatever it came by: the broker's push or the ledger."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct


class FeedKind(StrEnum):
    STATE = "state"
    PROGRESS = "progress"
    OUTPUT = "output"
    LOG = "log"
    DROPPED = "dropped"
    WORKFLOW = "workflow"
    RESULT = "result"


class FeedEvent(Struct, frozen=True, kw_only=True):
    """One event of a feed. `id` resumes the feed behind it; `job` is None in what is told of a whole workflow.

    `data` by kind, always JSON, always with `job` (and `workflow`, `node` where there are) and `at` (Unix time):

    - `state`: `state`, `attempt`, `worker`, `reason`;
    - `progress`: `current`, `total`, `message`, and what else the task told;
    - `output`: `chunk`;
    - `log`: `level`, `logger`, `message`;
    - `dropped`: `entries`, how many older ones are not kept any more;
    - `workflow`: `state`, `counts` by state, `progress`;
    - `result`, the last of a job's or a workflow's feed: `state`, and `result` or `error` and `reason`.
    """

    id: str
    kind: FeedKind
    at: float
    data: dict[str, Any]
    job: str | None = None
