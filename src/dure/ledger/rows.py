"""Values <-> rows. A row is a plain dict by column name; JSON columns hold text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import RowMapping

from dure.job import Job, JobError, State
from dure.node import Node
from dure.task import Task
from dure.workflow import Edge, NewNode, On, Outcome, Plan, Workflow, is_kept

Row = Mapping[str, Any] | RowMapping

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode

# What folding may change of a row; the rest is as it was submitted.
FOLDED = (
    "state",
    "reason",
    "result",
    "result_repr",
    "error",
    "fingerprint",
    "attempt",
    "attempts",
    "worker",
    "root_id",
    "parent_id",
    "group_id",
    "queued_at",
    "received_at",
    "started_at",
    "finished_at",
    "changed_at",
    "runtime",
    # of jobs that plain Celery code sent:
    "task",
    "queue",
    "args_repr",
    "kwargs_repr",
    "eta",
    "created_at",
)

# What a new row has; everything else is NULL.
SUBMITTED = (
    "id",
    "task",
    "state",
    "args",
    "kwargs",
    "attempts",
    "queue",
    "priority",
    "retries",
    "time_limit",
    "tags",
    "origin",
    "root_id",
    "parent_id",
    "group_id",
    "retry_of",
    "unique_key",
    "created_at",
    "eta",
    "expires",
    "changed_at",
)

# What a new node of a workflow has besides.
NODE = ("workflow_id", "node", "finished_at", "reason", "result", "error", "fingerprint")

# What changes of a node that waited.
BEGUN = (
    "id",
    "state",
    "reason",
    "args",
    "kwargs",
    "result",
    "error",
    "fingerprint",
    "eta",
    "expires",
    "finished_at",
    "changed_at",
)

_JSON = ("args", "kwargs", "result", "error")


def job_row(job: Job) -> dict[str, Any]:
    row = {name: getattr(job, name) for name in Job.__struct_fields__}
    for name in _JSON:
        row[name] = None if row[name] is None else _encode(row[name]).decode()
    row["tags"] = _encode(job.tags).decode() if job.tags else None
    row["state"] = job.state.value
    return row


def submitted_row(job: Job, due_at: float) -> dict[str, Any]:
    row = {name: getattr(job, name) for name in SUBMITTED}
    row["args"] = _encode(job.args).decode()
    row["kwargs"] = _encode(job.kwargs).decode()
    row["tags"] = _encode(job.tags).decode() if job.tags else None
    row["state"] = job.state.value
    row["due_at"] = due_at
    return row


def node_row(node: NewNode) -> dict[str, Any]:
    job = node.job
    row = {name: getattr(job, name) for name in (*SUBMITTED, *NODE)}
    for name in _JSON:
        row[name] = None if row[name] is None else _encode(row[name]).decode()
    row["tags"] = _encode(job.tags).decode() if job.tags else None
    row["state"] = job.state.value
    row["due_at"] = node.due_at
    row["plan"] = _encode(node.plan).decode()
    row["unmet"] = node.unmet
    return row


def begun_row(job: Job, unmet: int, due_at: float | None, passed_on_at: float | None) -> dict[str, Any]:
    row = {name: getattr(job, name) for name in BEGUN}
    for name in _JSON:
        row[name] = None if row[name] is None else _encode(row[name]).decode()
    return row | {"state": job.state.value, "unmet": unmet, "due_at": due_at, "passed_on_at": passed_on_at}


def edge_row(edge: Edge) -> dict[str, Any]:
    return {"job_id": edge.job_id, "name": edge.name, "needs": edge.needs, "passes": edge.on.value}


def read_edge(row: Row) -> Edge:
    return Edge(job_id=row["job_id"], name=row["name"], needs=row["needs"], on=On(row["passes"]))


def read_plan(row: Row) -> Plan:
    return _decode(row["plan"], type=Plan) if row["plan"] else Plan()


def read_outcome(row: Row) -> Outcome:
    fields = {name: None if row[name] is None else _decode(row[name]) for name in ("args", "kwargs", "result")}
    error = None if row["error"] is None else _decode(row["error"], type=JobError)
    return Outcome(
        job_id=row["id"],
        state=State(row["state"]),
        is_kept=is_kept(fields["result"], row["result_repr"]),
        reason=row["reason"],
        task=row["task"],
        error=error,
        **fields,
    )


def workflow_row(workflow: Workflow, open_nodes: int) -> dict[str, Any]:
    row = {name: getattr(workflow, name) for name in Workflow.__struct_fields__}
    row["output"] = _encode(workflow.output).decode()
    row["state"] = workflow.state.value
    row["open"] = open_nodes
    return row


def read_workflow(row: Row) -> Workflow:
    fields = {name: row[name] for name in Workflow.__struct_fields__}
    fields["output"] = None if fields["output"] is None else _decode(fields["output"])
    fields["state"] = State(fields["state"])
    return Workflow(**fields)


def signal_row(payload: Any) -> dict[str, Any]:
    return {"args": _encode([payload]).decode()}


def told_arguments(args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"told_args": _encode(args).decode(), "told_kwargs": _encode(kwargs).decode()}


def folded_row(job: Job, due_at: float | None, passed_on_at: float | None) -> dict[str, Any]:
    row = job_row(job)
    return {"id": job.id, "due_at": due_at, "passed_on_at": passed_on_at} | {name: row[name] for name in FOLDED}


def read_job(row: Row) -> Job:
    fields = {name: row[name] for name in Job.__struct_fields__}
    for name in ("args", "kwargs", "result"):
        if fields[name] is not None:
            fields[name] = _decode(fields[name])
    if fields["error"] is not None:
        fields["error"] = _decode(fields["error"], type=JobError)
    fields["tags"] = _decode(fields["tags"], type=tuple[str, ...]) if fields["tags"] else ()
    fields["state"] = State(fields["state"])
    return Job(**fields)


def task_row(task: Task) -> dict[str, Any]:
    row = {name: getattr(task, name) for name in Task.__struct_fields__}
    for name in ("arguments", "result"):
        row[name] = None if row[name] is None else _encode(row[name]).decode()
    row["positional"] = _encode(task.positional).decode()
    return row


def read_task(row: Row) -> Task:
    fields = dict(row)
    for name in ("arguments", "result"):
        if fields[name] is not None:
            fields[name] = _decode(fields[name])
    fields["positional"] = _decode(fields["positional"], type=tuple[str, ...])
    fields["variadic"] = bool(fields["variadic"])
    return Task(**fields)


def worker_row(node: Node, *, announced: bool) -> dict[str, Any]:
    row = {name: getattr(node, name) for name in Node.__struct_fields__}
    row["announced_at"] = node.heartbeat_at if announced else None
    row["queues"] = _encode(node.queues).decode()
    return row


def read_worker(row: Row) -> Node:
    fields = {name: row[name] for name in Node.__struct_fields__}
    fields["queues"] = _decode(fields["queues"], type=tuple[str, ...])
    fields["online"] = bool(fields["online"])
    return Node(**fields)


def encode_error(error: JobError) -> str:
    return _encode(error).decode()
