"""Values as the JSON that people and programs see: times are ISO 8601 in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from dure.job import Job, JobError
from dure.node import Node, Running
from dure.task import Task
from dure.workflow import Workflow

_TIMES = frozenset(
    name
    for name in (*Job.__struct_fields__, *Node.__struct_fields__, *Workflow.__struct_fields__)
    if name.endswith("_at") or name in ("eta", "expires", "deadline")
)
_JOB_FIELDS = tuple(name for name in Job.__struct_fields__ if name != "attempt")
_WORKFLOW_FIELDS = tuple(name for name in Workflow.__struct_fields__ if name not in ("output", "queue"))
_STEP_FIELDS = (
    *("task", "state", "reason", "attempts", "created_at", "eta", "queued_at", "started_at", "finished_at"),
    "runtime",
)


def job_view(job: Job) -> dict[str, Any]:
    return _fields(job, _JOB_FIELDS)


def workflow_view(workflow: Workflow) -> dict[str, Any]:
    """The record of a workflow, without its nodes."""
    return _fields(workflow, _WORKFLOW_FIELDS)


def whole_workflow_view(view: Any, *, nodes: bool = True) -> dict[str, Any]:
    """Of a `dure.ledger.flows.WorkflowView`."""
    whole = workflow_view(view.workflow) | {
        "counts": view.counts,
        "progress": {
            "done": sum(number for state, number in view.counts.items() if state.final),
            "total": sum(view.counts.values()),
        },
    }
    if not nodes:
        return whole
    return whole | {
        "nodes": [_step_view(node) for node in view.nodes],
        "critical_path": {"nodes": view.critical_path, "seconds": view.critical_seconds},
    }


def _step_view(node: Any) -> dict[str, Any]:
    """Of a `dure.ledger.flows.NodeView`."""
    job: Job = node.job
    return {
        "name": job.node or job.id,
        "kind": node.kind,
        "job": job.id,
        **_fields(job, _STEP_FIELDS),
        "needs": [{"node": edge.name, "on": edge.on} for edge in node.needs],
        "error": _summary(job.error),
    }


def _summary(error: JobError | None) -> dict[str, str] | None:
    return None if error is None else {"type": error.type, "message": error.message}


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


def _fields(record: Job | Workflow, names: Sequence[str]) -> dict[str, Any]:
    return {name: _moment(getattr(record, name)) if name in _TIMES else getattr(record, name) for name in names}


def _moment(at: float | None) -> str | None:
    if at is None:
        return None
    try:
        return datetime.fromtimestamp(at, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return None  # a worker whose clock is beyond any calendar
