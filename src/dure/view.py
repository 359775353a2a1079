"""Values as the JSON that people and programs see: times are ISO 8601 in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from dure.job import Job
from dure.node import Node, Running
from dure.task import Task

_TIMES = frozenset(
    name
    for name in (*Job.__struct_fields__, *Node.__struct_fields__)
    if name.endswith("_at") or name in ("eta", "expires")
)
_JOB_FIELDS = tuple(name for name in Job.__struct_fields__ if name != "attempt")


def job_view(job: Job) -> dict[str, Any]:
    return {name: _moment(getattr(job, name)) if name in _TIMES else getattr(job, name) for name in _JOB_FIELDS}


def group_view(group: Any) -> dict[str, Any]:
    """Of a `dure.ledger.Group`."""
    view = {name: getattr(group, name) for name in ("fingerprint", "task", "reason", "count")}
    moments = {name: _moment(getattr(group, name)) for name in ("first_at", "last_at")}
    return view | moments | {"latest": job_view(group.latest)}


def resent_view(resent: Any) -> dict[str, Any]:
    """Of a `dure.client.Resent`: whole records of what would be sent, ids of what was."""
    jobs = [job_view(job) if resent.dry_run else job.id for job in resent.jobs]
    return {"matched": resent.matched, "dry_run": resent.dry_run, "jobs": jobs, "skipped": resent.skipped}


def task_view(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "doc": task.doc,
        "arguments": task.arguments,
        "result": task.result,
        "queue": task.queue,
        "announced_at": _moment(task.announced_at),
        "announced_by": task.announced_by,
    }


def node_view(node: Node, running: Sequence[Running], *, online: bool) -> dict[str, Any]:
    view = {name: getattr(node, name) for name in Node.__struct_fields__}
    return view | {
        "online": online,
        "heartbeat_at": _moment(node.heartbeat_at),
        "started_at": _moment(node.started_at),
        "running": [{"id": job.id, "task": job.task, "started_at": _moment(job.started_at)} for job in running],
    }


def _moment(at: float | None) -> str | None:
    if at is None:
        return None
    try:
        return datetime.fromtimestamp(at, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return None  # a worker whose clock is beyond any calendar
