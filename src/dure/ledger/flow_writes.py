"""What is done to a workflow from outside: cancelled, ended at its deadline, signalled.

Each locks the workflow's row first, so nothing of it ends or begins meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, structs
from sqlalchemy import and_, case, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.errors import JobEnded, UnknownNode, UnknownWorkflow, WorkflowEnded
from dure.job import FINAL, Job, Reason, State
from dure.ledger import advance, feed_changes, flows, rows, writes
from dure.ledger.tables import jobs, workflows
from dure.workflow import Kind, Workflow

_OVERDUE_AT_ONCE = 100
_ENDED = sorted(state.value for state in FINAL)


class Cancelled(Struct, frozen=True, kw_only=True):
    """A workflow as it was left; `told` are the jobs that may have a message, for the broker."""

    workflow: Workflow
    told: list[str]


async def cancel(connection: AsyncConnection, workflow_id: str, at: float, due_at: float) -> Cancelled | None:
    """Raises WorkflowEnded; None for an unknown id."""
    locked = await advance.lock(connection, [workflow_id])
    if workflow_id not in locked:
        return None
    workflow = locked[workflow_id]
    if workflow.state is State.REVOKED:
        return Cancelled(workflow=workflow, told=[])
    if workflow.state.final:
        raise WorkflowEnded(workflow)
    if workflow.cancel_requested_at is None:
        asked = {"cancel_requested_at": at, "changed_at": at}
        await connection.execute(update(workflows).where(workflows.c.id == workflow_id).values(**asked))
    (cancelled,) = await _stop(connection, [workflow_id], at, due_at)
    return cancelled


async def end_overdue(connection: AsyncConnection, now: float, due_at: float) -> list[Cancelled]:
    """End some of those whose time is over: FAILURE `time-limit` at once, also where a worker does not stop."""
    locked = await advance.lock(connection, await overdue(connection, now))
    ids = [workflow.id for workflow in locked.values() if _is_overdue(workflow, now)]
    if not ids:
        return []
    end = {"state": State.FAILURE.value, "reason": Reason.TIME_LIMIT.value, "finished_at": now, "changed_at": now}
    await connection.execute(update(workflows).where(workflows.c.id.in_(ids)).values(**end))
    after: dict[str, Any] = {"state": State.FAILURE, "reason": Reason.TIME_LIMIT, "finished_at": now, "changed_at": now}
    for workflow_id in ids:
        feed_changes.of(connection).workflow(structs.replace(locked[workflow_id], **after), now)
    return await _stop(connection, ids, now, due_at)


async def overdue(connection: AsyncConnection, now: float) -> list[str]:
    over = (workflows.c.state == State.STARTED.value, workflows.c.deadline <= now)
    query = select(workflows.c.id).where(*over).order_by(workflows.c.deadline).limit(_OVERDUE_AT_ONCE)
    return list(await connection.scalars(query))


def _is_overdue(workflow: Workflow, now: float) -> bool:
    """What was read before the lock may have changed since."""
    return not workflow.state.final and workflow.deadline is not None and workflow.deadline <= now


async def _stop(connection: AsyncConnection, ids: Sequence[str], at: float, due_at: float) -> list[Cancelled]:
    """Revoke the nodes of these that nobody has begun, and ask for the end of those that run."""
    runs = jobs.c.state == State.STARTED.value
    no_message = or_(
        jobs.c.state == State.WAITING.value,
        and_(jobs.c.state == State.SCHEDULED.value, jobs.c.due_at == jobs.c.eta),  # no relay has taken it yet
    )
    revoked = {"state": State.REVOKED.value, "reason": Reason.REVOKED.value, "finished_at": at, "changed_at": at}
    revoked |= dict.fromkeys(writes.OF_AN_ATTEMPT)
    open_ = (jobs.c.state.not_in(_ENDED), jobs.c.cancel_requested_at.is_(None))
    result = await connection.execute(
        update(jobs)
        .where(writes.in_order(jobs.c.workflow_id.in_(ids), *open_))
        .values(
            cancel_requested_at=at,
            due_at=case((no_message, None), else_=due_at),
            **{name: case((runs, jobs.c[name]), else_=value) for name, value in revoked.items()},
        )
        .returning(*jobs.c)
    )
    stopped = sorted(result.mappings(), key=lambda row: row["seq"])
    told: dict[str, list[str]] = defaultdict(list)
    for row in stopped:
        if row["due_at"] is not None:
            told[row["workflow_id"]].append(row["id"])
    # Nothing that waits is left to be begun; the workflows are brought to their end.
    found = [rows.read_job(row) for row in stopped]
    ended = [job for job in found if job.state.final]
    feed_changes.of(connection).states(ended)
    feed_changes.of(connection).tell(found)
    if ended:
        await advance.pass_on(connection, ended, at, lease=0.0)
    now = await flows.find_some(connection, ids)
    return [Cancelled(workflow=now[workflow_id], told=sorted(told[workflow_id])) for workflow_id in ids]


async def signal(
    connection: AsyncConnection, workflow_id: str, name: str, payload: Any, at: float, *, lease: float
) -> tuple[Job, list[Job]]:
    """The node as it is afterwards, and the jobs to publish. Raises UnknownWorkflow, UnknownNode or JobEnded."""
    if workflow_id not in await advance.lock(connection, [workflow_id]):
        raise UnknownWorkflow(workflow_id)
    query = select(jobs).where(flows.current(workflow_id), jobs.c.node == name).with_for_update()
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        raise UnknownNode(workflow_id, name)
    if rows.read_plan(row).kind is not Kind.WAIT:
        raise UnknownNode(workflow_id, name, "it waits for no signal; only a node of the kind wait does")
    job = rows.read_job(row)
    if job.state.final or job.args:  # what a signal brought is kept there
        raise JobEnded(job, "it takes no further signal")
    released = await advance.signalled(connection, job, payload, at, lease=lease)
    after = await flows.node(connection, workflow_id, name)
    return after or job, released
