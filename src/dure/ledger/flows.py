"""Questions about workflows. Of one name the node counts that is not replaced by another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, structs
from sqlalchemy import ColumnElement, RowMapping, and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.job import Job, Reason, State
from dure.ledger import rows
from dure.ledger.bulk import among
from dure.ledger.critical import Step, critical_path
from dure.ledger.reads import cursor_of, read_cursor
from dure.ledger.rerun import History, Row
from dure.ledger.tables import edges, jobs, workflows
from dure.workflow import ITEM, Edge, Kind, Outcome, Workflow, references, resolve

# What is told of a node without what it holds.
_OUTLINE = (
    jobs.c.id,
    jobs.c.node,
    jobs.c.plan,
    jobs.c.state,
    jobs.c.reason,
    jobs.c.replaced_by,
    jobs.c.parent_id,
    jobs.c.started_at,
    jobs.c.finished_at,
)


class NodeView(Struct, frozen=True, kw_only=True):
    job: Job
    kind: Kind
    needs: tuple[Edge, ...]


class WorkflowView(Struct, frozen=True, kw_only=True):
    """A workflow with its nodes in the order in which they were made, and how many are in which state.

    `critical_path` names the nodes along the chain of needs that took longest, as far as they have ended.
    """

    workflow: Workflow
    counts: dict[State, int]
    nodes: tuple[NodeView, ...] = ()
    critical_path: tuple[str, ...] = ()
    critical_seconds: float = 0.0


class WorkflowPage(Struct, frozen=True, kw_only=True):
    """Workflows, newest first; `next` is the cursor of the page after, None on the last."""

    workflows: tuple[Workflow, ...]
    next: str | None


def current(workflow_id: str) -> ColumnElement[bool]:
    """The nodes that count."""
    return and_(jobs.c.workflow_id == workflow_id, jobs.c.replaced_by.is_(None))


async def find(connection: AsyncConnection, workflow_id: str) -> Workflow | None:
    return (await find_some(connection, [workflow_id])).get(workflow_id)


async def find_some(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, Workflow]:
    found = await connection.execute(select(workflows).where(workflows.c.id.in_(list(ids))))
    return {row["id"]: rows.read_workflow(row) for row in found.mappings()}


async def page(connection: AsyncConnection, state: State | None, cursor: str | None, limit: int) -> WorkflowPage:
    """One page. Workflows that arrive meanwhile have a higher `seq`, so they move no later page."""
    query = select(workflows).order_by(workflows.c.seq.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(workflows.c.state == state.value)
    if cursor is not None:
        query = query.where(workflows.c.seq < read_cursor(cursor))
    found = list((await connection.execute(query)).mappings())
    shown = found[:limit]
    return WorkflowPage(
        workflows=tuple(map(rows.read_workflow, shown)),
        next=cursor_of(shown[-1]["seq"]) if len(found) > limit else None,
    )


async def view(connection: AsyncConnection, workflow_id: str, *, nodes: bool) -> WorkflowView | None:
    workflow = await find(connection, workflow_id)
    if workflow is None:
        return None
    counts = await count(connection, current(workflow_id))
    if not nodes:
        return WorkflowView(workflow=workflow, counts=counts)
    known = await history(connection, workflow_id)
    found = list((await connection.execute(select(jobs).where(current(workflow_id)).order_by(jobs.c.seq))).mappings())
    names, seconds = critical_path(_steps(known))
    return WorkflowView(
        workflow=workflow,
        counts=counts,
        nodes=tuple(
            NodeView(job=rows.read_job(row), kind=rows.read_plan(row).kind, needs=_needs(known, row["id"]))
            for row in found
        ),
        critical_path=names,
        critical_seconds=seconds,
    )


def _needs(known: History, job_id: str) -> tuple[Edge, ...]:
    """What stands for the nodes that another became needs these, and what that one needed."""
    before = known.needs.get(known.makers.get(job_id, ""), ())
    as_ours = (structs.replace(edge, job_id=job_id, needs=known.now(edge.needs)) for edge in before)
    return (*known.needs.get(job_id, ()), *as_ours)


async def count(connection: AsyncConnection, wanted: ColumnElement[bool]) -> dict[State, int]:
    query = select(jobs.c.state, func.count()).where(wanted).group_by(jobs.c.state)
    return {State(state): number for state, number in await connection.execute(query)}


async def history(connection: AsyncConnection, workflow_id: str) -> History:
    """All of its rows, without what they hold."""
    ours = jobs.c.workflow_id == workflow_id
    needs = select(edges).where(edges.c.job_id.in_(select(jobs.c.id).where(ours))).order_by(edges.c.name)
    found = await connection.execute(needs)
    by_row = [rows.read_edge(row) for row in found.mappings()]
    found = await connection.execute(select(*_OUTLINE).where(ours))
    return History([_outline(row) for row in found.mappings()], by_row)


def _outline(row: RowMapping) -> Row:
    plan = rows.read_plan(row)
    fields = {column.name: row[column.name] for column in _OUTLINE if column.name != "plan"}
    fields |= {"node": row["node"] or row["id"], "state": State(row["state"])}
    return Row(**fields, kind=plan.kind, continues=plan.continues)


def _steps(known: History) -> list[Step]:
    """What has ended: the nodes that count, and those that became nodes of their own, which are their makers' needs."""
    makers = set(known.makers.values())
    ended = [r for r in known.rows.values() if r.finished_at is not None and (r.counts or r.id in makers)]
    steps = []
    for row in ended:
        before = [edge.needs for edge in known.needs[row.id]]
        if not before and row.parent_id in makers:
            before = [row.parent_id]
        seconds = _seconds(row, [known.rows[need].finished_at for need in before if need in known.rows])
        shown = row.id not in known.makers
        steps.append(Step(id=row.id, name=row.node, seconds=seconds, needs=tuple(before), is_shown=shown))
    return steps


def _seconds(row: Row, needs_ended: Sequence[float | None]) -> float:
    """How long it ran; of a WAIT, how long it was waited for when all else was there."""
    begun = row.started_at
    if row.kind is Kind.WAIT and needs_ended and None not in needs_ended:
        begun = max(at for at in needs_ended if at is not None)
    return 0.0 if begun is None else max(0.0, (row.finished_at or begun) - begun)


async def result(connection: AsyncConnection, workflow: Workflow) -> Any:
    """The template of its result, filled in from the nodes that it names. Raises NoSuchPart."""
    names = sorted({reference.name for reference in references(workflow.output) if reference.kind != ITEM})
    found = await connection.execute(select(jobs).where(current(workflow.id), among(connection, jobs.c.node, names)))
    return resolve(workflow.output, {row["node"]: Outcome.of(rows.read_job(row)) for row in found.mappings()})


async def failure(connection: AsyncConnection, workflow_id: str) -> Job | None:
    """The first node that failed of itself; where none did, the first that failed."""
    failed = (current(workflow_id), jobs.c.state == State.FAILURE.value)
    query = select(jobs.c.id, jobs.c.reason, jobs.c.plan).where(*failed).order_by(jobs.c.finished_at, jobs.c.seq)
    found = [row for row in (await connection.execute(query)).mappings() if not rows.read_plan(row).continues]
    found.sort(key=lambda row: row["reason"] == Reason.UPSTREAM_FAILED)
    if not found:
        return None
    row = (await connection.execute(select(jobs).where(jobs.c.id == found[0]["id"]))).mappings().one()
    return rows.read_job(row)


async def node(connection: AsyncConnection, workflow_id: str, name: str) -> Job | None:
    query = select(jobs).where(current(workflow_id), jobs.c.node == name)
    row = (await connection.execute(query)).mappings().first()
    return None if row is None else rows.read_job(row)
