"""What one transaction changes that somebody may watch, gathered where it is written and told in one place.

Whoever writes a node's or a workflow's state notes it here. Before the commit all of it goes into the log of its
workflow by one statement, and after the commit whoever waits for it is told. In the log of a workflow `seq` rises in
the order of the commits: who writes there holds the workflow's lock until then.

That the broker has confirmed a node's message is not in the log: it is marked by one statement that takes no lock. A
worker's word that it has the message is.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.job import Job, State
from dure.ledger import trips
from dure.ledger.bulk import Row, inserting
from dure.ledger.tables import feed
from dure.workflow import Workflow

_KEY = "dure.changes"  # among what goes with a connection
_BEFORE_ENTRIES = frozenset({State.SCHEDULED, State.WAITING, State.ACCEPTED, State.QUEUED, State.STARTED})


class RowKind(StrEnum):
    ENTRIES = "entries"
    STATE = "state"
    WORKFLOW = "workflow"
    DROPPED = "dropped"


class Changes:
    """`jobs` and `workflows` are those to be told of, as the transaction last saw them."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.workflows: dict[str, Workflow] = {}
        self._before: list[Row] = []
        self._after: list[Row] = []

    @property
    def rows(self) -> list[Row]:
        return self._before + self._after

    def states(self, jobs: Iterable[Job]) -> None:
        """These have another state now; of those that are nodes it is kept."""
        for job in sorted(jobs, key=lambda job: job.state not in _BEFORE_ENTRIES):
            if job.workflow_id is not None:
                body = {"state": job.state, "attempt": job.attempt, "worker": job.worker, "reason": job.reason}
                row = feed_row(RowKind.STATE, job.workflow_id, job.id, job.changed_at, _text(body))
                (self._before if job.state in _BEFORE_ENTRIES and not self._after else self._after).append(row)
                self.jobs[job.id] = job

    def workflow(self, workflow: Workflow, at: float) -> None:
        """It has another state now."""
        body = _text({"state": workflow.state, "reason": workflow.reason})
        self._after.append(feed_row(RowKind.WORKFLOW, workflow.id, None, at, body))
        self.workflows[workflow.id] = workflow

    def entries(self, rows: Iterable[Row], tellers: Iterable[Job]) -> None:
        """What attempts told: behind their beginning, and before their end."""
        self._before += rows
        self.tell(job for job in tellers if job.workflow_id is not None)

    def tell(self, jobs: Iterable[Job]) -> None:
        """Nobody else tells of these."""
        for job in jobs:
            self.jobs.setdefault(job.id, job)


def feed_row(kind: RowKind, workflow_id: str | None, job_id: str | None, at: float, body: str, **fields: Any) -> Row:
    """Each has all columns, so that one statement inserts them."""
    row: Row = {"job_id": job_id, "workflow_id": workflow_id, "run": None, "first": None, "last": None}
    return row | {"kind": kind.value, "at": at, "size": len(body), "body": body} | fields


def begin(connection: AsyncConnection) -> Changes:
    """Those of a new transaction."""
    _of(connection)[_KEY] = changes = Changes()
    return changes


def of(connection: AsyncConnection) -> Changes:
    """Those of the transaction that the connection is in."""
    changes: Changes = _of(connection)[_KEY]
    return changes


def _of(connection: AsyncConnection) -> dict[Any, Any]:
    assert connection.sync_connection is not None  # noqa: S101 - the transaction has begun
    return connection.sync_connection.info


def write(connection: AsyncConnection, changes: Changes) -> None:
    trips.later(connection, inserting(connection, feed, changes.rows))


def _text(body: Any) -> str:
    return msgspec.json.encode(body).decode()
