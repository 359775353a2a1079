"""Running a workflow again in its place: what failed, or from one node on, with all that depends on it.

Each row that is run again is copied, with `retry_of`, and its edges go from copy to copy; what has ended and is kept
tells its end to the new rows as it did to the old ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import structs
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils import uuid7

from dure.errors import JobNotEnded, UnknownNode, UnknownWorkflow, WorkflowNotEnded
from dure.job import FINAL, Job, Reason, State
from dure.ledger import advance, feed_changes, flows, rows, writes
from dure.ledger.bulk import among, update_rows
from dure.ledger.rerun import History, Rerun
from dure.ledger.tables import edges, jobs, workflows
from dure.workflow import Edge, Kind, NewNode, Plan, Workflow

# What a copy has of its row; its times and its end are its own.
_KEPT = (
    "task",
    "args",
    "kwargs",
    "queue",
    "priority",
    "retries",
    "time_limit",
    "tags",
    "origin",
    "root_id",
    "parent_id",
    "group_id",
    "workflow_id",
    "node",
)
_PLACE = ("root_id", "parent_id", "group_id", "workflow_id", "node", "retry_of")


async def retry(
    connection: AsyncConnection, workflow_id: str, at: float, *, node: str | None, edited: Job | None, lease: float
) -> tuple[Workflow, list[Job]]:
    """The workflow as it is then, and the jobs to publish.

    Without a node it must have ended, with one the node. Raises UnknownWorkflow, UnknownNode, WorkflowNotEnded or
    JobNotEnded.
    """
    locked = await advance.lock(connection, [workflow_id])
    if workflow_id not in locked:
        raise UnknownWorkflow(workflow_id)
    workflow = locked[workflow_id]
    known = await flows.history(connection, workflow_id)
    seeds = _seeds(workflow, known, node)
    again = known.rerun(seeds)
    await _check(connection, known, again, node)
    if not again.copied:
        return workflow, []
    copies = await _copies(connection, again, at)
    if edited is not None and node is not None:
        copies[seeds[0]] = _edited(copies[seeds[0]], edited)
    new = {job_id: copy.job.id for job_id, copy in copies.items()}
    needs = _needs(known, again, new)
    await _replace(connection, known, again, new, at)
    await writes.insert_nodes(
        connection,
        [structs.replace(copy, unmet=_unmet(copy.plan, needs[copy.job.id])) for copy in copies.values()],
        [edge for job_id in new.values() for edge in needs[job_id]],
    )
    await _wait_anew(connection, again, needs)
    untold = await _untold(connection, known, again, needs)
    await _open_again(connection, workflow, at, untold=len(untold))
    released = await advance.pass_on(connection, untold, at, lease=lease) if untold else []
    released += await advance.begin(connection, list(new.values()), at, lease=lease)
    after = await flows.find(connection, workflow_id)
    return after or workflow, released


def _unmet(plan: Plan, needs: Sequence[Edge]) -> int:
    return len(needs) + (plan.kind is Kind.WAIT)


def _seeds(workflow: Workflow, known: History, node: str | None) -> list[str]:
    present = [row for row in known.rows.values() if row.counts]
    if node is None:
        if not workflow.state.final:
            raise WorkflowNotEnded(workflow)
        return [row.id for row in present if row.failed]
    if not workflow.state.final and workflow.cancel_requested_at is not None:
        raise WorkflowNotEnded(workflow)
    named = [row.id for row in present if row.node == node]
    if not named:
        raise UnknownNode(workflow.id, node)
    return named


async def _check(connection: AsyncConnection, known: History, again: Rerun, node: str | None) -> None:
    """Raises JobNotEnded for what has been begun and would be replaced; without a node, for whatever runs on after
    the workflow's end."""
    asked = [row for row in known.rows.values() if row.counts and not row.state.final]
    for row in asked:
        replaced = row.id in again.ended and row.state is not State.WAITING
        if replaced or node is None or row.node == node:
            found = await connection.execute(select(jobs).where(jobs.c.id == row.id))
            raise JobNotEnded(rows.read_job(found.mappings().one()))


async def _copies(connection: AsyncConnection, again: Rerun, at: float) -> dict[str, NewNode]:
    """By the id of the node that counts."""
    sources = {source: job_id for job_id, source in again.copied.items()}
    query = select(jobs).where(among(connection, jobs.c.id, sources)).order_by(jobs.c.seq)
    copies = {}
    for row in (await connection.execute(query)).mappings():
        job, plan = rows.read_job(row), rows.read_plan(row)
        kept: dict[str, Any] = {name: getattr(job, name) for name in _KEPT}
        kept |= {name: template for name in ("args", "kwargs") if (template := getattr(plan, name)) is not None}
        if plan.kind is Kind.WAIT:
            kept["args"] = []  # what its signal brought
        if job.root_id == job.id:
            kept["root_id"] = None  # as its worker told it; the copy is a root of its own
        copy = Job(**kept, id=str(uuid7()), state=State.WAITING, retry_of=job.id, created_at=at, changed_at=at)
        copies[sources[job.id]] = NewNode(job=copy, plan=plan)
    return copies


def _edited(copy: NewNode, edited: Job) -> NewNode:
    """What the caller has made of it in the place of what would be run, with arguments that refer to nothing."""
    place: dict[str, Any] = {name: getattr(copy.job, name) for name in _PLACE}
    plan = structs.replace(copy.plan, args=None, kwargs=None, delay=None, expires=None)
    return NewNode(job=structs.replace(edited, **place, state=State.WAITING), plan=plan)


def _needs(known: History, again: Rerun, new: Mapping[str, str]) -> dict[str, list[Edge]]:
    """By the ids of the copies and of those that wait anew."""
    sources = {new[job_id]: source for job_id, source in again.copied.items()} | {i: i for i in again.waiting}
    needs: dict[str, list[Edge]] = {}
    for job_id, source in sources.items():
        present = [(edge, known.now(edge.needs)) for edge in known.needs[source]]
        needs[job_id] = [structs.replace(edge, job_id=job_id, needs=new.get(need, need)) for edge, need in present]
    return needs


async def _replace(
    connection: AsyncConnection, known: History, again: Rerun, new: Mapping[str, str], at: float
) -> None:
    replaced = {**new, **{job_id: new[maker] for job_id, maker in again.dropped.items()}}
    await _lock(connection, replaced)
    await update_rows(connection, jobs, [{"id": old, "replaced_by": replaced[old]} for old in sorted(replaced)])
    never_begun = [job_id for job_id in replaced if known.rows[job_id].state is State.WAITING]
    if never_begun:
        end = {"state": State.REVOKED.value, "reason": Reason.REVOKED.value, "finished_at": at, "changed_at": at}
        gone = update(jobs).where(among(connection, jobs.c.id, never_begun))
        found = await connection.execute(gone.values(**end, expires=None, passed_on_at=at).returning(*jobs.c))
        feed_changes.of(connection).states(map(rows.read_job, found.mappings()))


async def _wait_anew(connection: AsyncConnection, again: Rerun, needs: Mapping[str, Sequence[Edge]]) -> None:
    """All of their needs are unmet again; the time of a WAIT has not begun."""
    if not again.waiting:
        return
    await _lock(connection, again.waiting)
    pointed = [rows.edge_row(edge) for job_id in again.waiting for edge in needs[job_id]]
    if pointed:
        its = (edges.c.job_id == bindparam("of"), edges.c.name == bindparam("called"))
        point = update(edges).where(*its).values(needs=bindparam("to"))
        told = [{"of": row["job_id"], "called": row["name"], "to": row["needs"]} for row in pointed]
        await connection.execute(point, told)
    found = await connection.execute(select(jobs).where(among(connection, jobs.c.id, again.waiting)))
    fresh = []
    for row in found.mappings():
        plan = rows.read_plan(row)
        is_wait = plan.kind is Kind.WAIT
        has_signal = is_wait and bool(rows.read_job(row).args)
        unmet = _unmet(plan, needs[row["id"]]) - has_signal
        fresh.append({"id": row["id"], "unmet": unmet, "expires": None if is_wait else row["expires"]})
    await update_rows(connection, jobs, fresh)


async def _open_again(connection: AsyncConnection, workflow: Workflow, at: float, *, untold: int) -> None:
    """STARTED, with a new deadline where it had ended. Those that tell their end once more count as open until then."""
    not_ended = [jobs.c.workflow_id == workflow.id, jobs.c.state.not_in(sorted(state.value for state in FINAL))]
    values: dict[str, Any] = {
        "state": State.STARTED.value,
        "changed_at": at,
        "open": select(func.count() + untold).select_from(jobs).where(*not_ended).scalar_subquery(),
    }
    if workflow.state.final:
        deadline = None if workflow.timeout is None else at + workflow.timeout
        values |= {"reason": None, "finished_at": None, "cancel_requested_at": None, "deadline": deadline}
    query = update(workflows).where(workflows.c.id == workflow.id).values(**values).returning(*workflows.c)
    again = rows.read_workflow((await connection.execute(query)).mappings().one())
    if again.state is not workflow.state:
        feed_changes.of(connection).workflow(again, at)


async def _untold(
    connection: AsyncConnection, known: History, again: Rerun, needs: Mapping[str, Sequence[Edge]]
) -> list[Job]:
    """The needs that have ended, as if they had told nobody yet; who was told and still waits is to be told again."""
    wanted = {edge.needs for listed in needs.values() for edge in listed}
    ended = {job_id for job_id in wanted if job_id in known.rows and known.rows[job_id].state.final}
    if not ended:
        return []
    others = {}
    for row in known.rows.values():
        if row.counts and row.state is State.WAITING and row.id not in again.waiting | again.ended:
            others[row.id] = sum(edge.needs in ended for edge in known.needs[row.id])
    others = {job_id: met for job_id, met in others.items() if met}
    await _lock(connection, [*ended, *others])
    for met in sorted(set(others.values())):
        those = [job_id for job_id, number in others.items() if number == met]
        waiting = update(jobs).where(among(connection, jobs.c.id, those))
        await connection.execute(waiting.values(unmet=jobs.c.unmet + met))
    untold = update(jobs).where(among(connection, jobs.c.id, ended)).values(passed_on_at=None).returning(*jobs.c)
    return [rows.read_job(row) for row in (await connection.execute(untold)).mappings()]


async def _lock(connection: AsyncConnection, ids: Collection[str]) -> None:
    """In the order in which all others lock."""
    await connection.execute(
        select(jobs.c.id).where(among(connection, jobs.c.id, ids)).order_by(jobs.c.id).with_for_update()
    )
