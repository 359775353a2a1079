"""Records and entries as the events of a feed: what `data` says of each kind."""

from __future__ import annotations

from typing import Any

import msgspec

from dure.entry import Entry, EntryKind
from dure.feed import FeedEvent, FeedKind
from dure.job import Job, State


def state_event(event_id: str, job: Job) -> FeedEvent:
    at = job.changed_at
    data = where_of(job) | {"at": at, "task": job.task, **_standing(job)}
    return FeedEvent(id=event_id, kind=FeedKind.STATE, at=at, job=job.id, data=data)


def result_event(event_id: str, job: Job) -> FeedEvent:
    at = job.finished_at or job.changed_at
    data = where_of(job) | {"at": at, "task": job.task, **_standing(job), "runtime": job.runtime}
    if job.state is State.SUCCESS:
        data["result"] = job.result
        if job.result_repr is not None:
            data["result_repr"] = job.result_repr
    else:
        data["error"] = msgspec.to_builtins(job.error)
    return FeedEvent(id=event_id, kind=FeedKind.RESULT, at=at, job=job.id, data=data)


def entry_event(event_id: str, job_id: str, entry: Entry, where: dict[str, Any]) -> FeedEvent:
    """`where` names the job, and the workflow and the node where there are."""
    plain = entry.kind is EntryKind.OUTPUT or not isinstance(entry.body, dict)
    body = {"chunk": entry.body} if plain else entry.body
    kind = _KINDS[entry.kind]
    return FeedEvent(id=event_id, kind=kind, at=entry.at, job=job_id, data={**body, **where, "at": entry.at})


def dropped_event(event_id: str, job_id: str, entries: int, at: float, where: dict[str, Any]) -> FeedEvent:
    data = {**where, "at": at, "entries": entries}
    return FeedEvent(id=event_id, kind=FeedKind.DROPPED, at=at, job=job_id, data=data)


def where_of(job: Job) -> dict[str, Any]:
    """What every event of a job says in its `data`."""
    if job.workflow_id is None:
        return {"job": job.id}
    return {"job": job.id, "workflow": job.workflow_id, "node": job.node}


def _standing(job: Job) -> dict[str, Any]:
    return {"state": job.state.value, "attempt": job.attempts, "worker": job.worker, "reason": job.reason}


_KINDS = {
    EntryKind.PROGRESS: FeedKind.PROGRESS,
    EntryKind.OUTPUT: FeedKind.OUTPUT,
    EntryKind.LOG: FeedKind.LOG,
}
