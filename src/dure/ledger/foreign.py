"""Workflows of plain Celery code: jobs that name one root or one group, of which nobody made a record."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.job import Job, State
from dure.ledger import flows, rows
from dure.ledger.critical import Step, critical_path
from dure.ledger.flows import NodeView, WorkflowView
from dure.ledger.tables import jobs
from dure.workflow import Edge, Kind, On, Workflow


async def view(connection: AsyncConnection, workflow_id: str, *, nodes: bool) -> WorkflowView | None:
    """Any workflow, recorded or not; None where a single job, or none, goes by the id."""
    recorded = await flows.view(connection, workflow_id, nodes=nodes)
    return recorded or await _foreign(connection, workflow_id, nodes=nodes)


async def _foreign(connection: AsyncConnection, workflow_id: str, *, nodes: bool) -> WorkflowView | None:
    members = union(  # not an OR, so that each part has its own index
        select(jobs.c.id).where(jobs.c.root_id == workflow_id, jobs.c.parent_id.is_not(None)),
        select(jobs.c.id).where(jobs.c.group_id == workflow_id),
        select(jobs.c.id).where(jobs.c.id == workflow_id),
    )
    wanted = jobs.c.id.in_(members)
    counts = await flows.count(connection, wanted)
    if sum(counts.values()) < 2:
        return None
    found = await connection.execute(select(jobs).where(wanted).order_by(jobs.c.created_at, jobs.c.seq))
    members_found = [rows.read_job(row) for row in found.mappings()]
    workflow = _workflow(workflow_id, members_found)
    if not nodes:
        return WorkflowView(workflow=workflow, counts=counts)
    ids = {job.id for job in members_found}
    views = tuple(NodeView(job=job, kind=Kind.TASK, needs=_needs(job, ids)) for job in members_found)
    names, seconds = critical_path([_step(node) for node in views if node.job.finished_at is not None])
    return WorkflowView(workflow=workflow, counts=counts, nodes=views, critical_path=names, critical_seconds=seconds)


def _workflow(workflow_id: str, members: Sequence[Job]) -> Workflow:
    state, reason = _state(members)
    last = max(job.changed_at for job in members)
    root = next((job for job in members if job.id == workflow_id), None)
    return Workflow(
        id=workflow_id,
        name=None if root is None else root.task,
        state=state,
        reason=reason,
        origin="celery",
        created_at=min(job.created_at for job in members),
        finished_at=max(job.finished_at or job.changed_at for job in members) if state.final else None,
        changed_at=last,
    )


def _state(members: Sequence[Job]) -> tuple[State, str | None]:
    """As of Dure's own: open while one is, and the first that did not succeed gives the reason."""
    if any(not job.state.final for job in members):
        return State.STARTED, None
    for state in (State.FAILURE, State.REVOKED):
        ended = [job for job in members if job.state is state]
        if ended:
            return state, min(ended, key=lambda job: job.finished_at or job.changed_at).reason
    return State.SUCCESS, None


def _needs(job: Job, ids: set[str]) -> tuple[Edge, ...]:
    if job.parent_id is None or job.parent_id not in ids:
        return ()
    return (Edge(job_id=job.id, name=job.parent_id, needs=job.parent_id, on=On.SUCCESS),)


def _step(node: NodeView) -> Step:
    job = node.job
    begun = job.finished_at if job.started_at is None else job.started_at
    return Step(
        id=job.id,
        name=job.id,
        seconds=max(0.0, (job.finished_at or 0.0) - (begun or 0.0)),
        needs=tuple(edge.needs for edge in node.needs),
    )
