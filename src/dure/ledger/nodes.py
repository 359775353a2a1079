"""Statements of passing on. Each is one, however many nodes it is about, and none where it is about none.

What is written here travels with what is asked next, or with the commit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningUpdate

from dure.job import Job, Reason, State
from dure.ledger import feed_changes, rows, trips
from dure.ledger.beginning import Begun, Told, Waiting
from dure.ledger.bulk import Call, add_to_rows, among, among_listed, listed, update_rows, updating
from dure.ledger.tables import edges, jobs, tasks, workflows
from dure.workflow import Outcome, Plan, Workflow

_OF_AN_OUTCOME = ("id", "state", "reason", "result", "result_repr", "error", "task", "args", "kwargs")


async def mark_passed_on(connection: AsyncConnection, ids: Collection[str], at: float) -> dict[str, Plan]:
    """Those of these nodes whose end was not passed on before."""
    if not ids:
        return {}
    found = await connection.execute(_mark_passed_on(connection.dialect.name), listed(ids) | {"at": at})
    return {row["id"]: rows.read_plan(row) for row in found.mappings()}


@cache
def _mark_passed_on(dialect: str) -> ReturningUpdate[Any]:
    new = (among_listed(dialect, jobs.c.id), jobs.c.passed_on_at.is_(None))
    return update(jobs).where(*new).values(passed_on_at=bindparam("at")).returning(jobs.c.id, jobs.c.plan)


class Ended(NamedTuple):
    """A node whose end is to be passed on, which is marked or on its way to be."""

    job: Job
    plan: Plan


class Ahead(NamedTuple):
    """What was asked of the dependants of `needs` before it was known which of these have ended: all edges from them to
    nodes that wait, and those of these nodes that need no more than one thing."""

    needs: frozenset[str]
    told: list[Told]
    nearly: list[Waiting]

    def answers(self, ended: Collection[str]) -> bool:
        return self.needs.issuperset(ended)


def ahead(connection: AsyncConnection, needs: Collection[str]) -> list[Call]:
    dialect, wanted = connection.dialect.name, [listed(needs)]
    return [Call(_dependants(dialect), wanted), Call(_nearly(dialect), wanted)]


def read_ahead(needs: Collection[str], told: trips.Found, nearly: trips.Found) -> Ahead:
    return Ahead(frozenset(needs), _read_told(told), [_read_waiting(row, {}) for row in nearly])


async def dependants(connection: AsyncConnection, needs: Collection[str]) -> list[Told]:
    """The edges of these needs to nodes that still wait."""
    if not needs:
        return []
    (found,) = await trips.ask(connection, Call(_dependants(connection.dialect.name), [listed(needs)]))
    return _read_told(found)


def _read_told(found: trips.Found) -> list[Told]:
    return [Told(edge=rows.read_edge(row), unmet=row["unmet"], task=row["task"]) for row in found]


@cache
def _dependants(dialect: str) -> Select[Any]:
    return (
        select(edges, jobs.c.unmet, jobs.c.task)
        .join(jobs, jobs.c.id == edges.c.job_id)
        .where(among_listed(dialect, edges.c.needs), jobs.c.state == State.WAITING.value)
        .order_by(edges.c.job_id, edges.c.name)
    )


@cache
def _nearly(dialect: str) -> Select[Any]:
    theirs = select(edges.c.job_id).where(among_listed(dialect, edges.c.needs))
    wanted = (jobs.c.id.in_(theirs), jobs.c.state == State.WAITING.value, jobs.c.unmet <= 1)
    return select(jobs).where(*wanted).order_by(jobs.c.seq)


def lower_unmet(connection: AsyncConnection, left: Mapping[str, int]) -> None:
    less = [{"id": job_id, "unmet": unmet} for job_id, unmet in left.items()]
    trips.later(connection, updating(connection, jobs, less))


async def waiting(connection: AsyncConnection, ids: Collection[str], left: Mapping[str, int]) -> list[Waiting]:
    """`left` is what is unmet of them, where that is not written."""
    if not ids:
        return []
    (found,) = await trips.ask(connection, Call(_waiting(connection.dialect.name), [listed(ids)]))
    return [_read_waiting(row, left) for row in found]


def _read_waiting(row: rows.Row, left: Mapping[str, int]) -> Waiting:
    return Waiting(job=rows.read_job(row), plan=rows.read_plan(row), unmet=left.get(row["id"], row["unmet"] or 0))


@cache
def _waiting(dialect: str) -> Select[Any]:
    wanted = (among_listed(dialect, jobs.c.id), jobs.c.state == State.WAITING.value)
    return select(jobs).where(*wanted).order_by(jobs.c.seq)


async def keep_signal(connection: AsyncConnection, job_id: str, payload: Any, at: float) -> bool:
    """Whether it was the first."""
    unsignalled = or_(jobs.c.args.is_(None), jobs.c.args == "[]")
    waits = (jobs.c.id == job_id, jobs.c.state == State.WAITING.value, unsignalled)
    brought = rows.signal_row(payload) | {"unmet": jobs.c.unmet - 1, "changed_at": at}
    return bool((await connection.execute(update(jobs).where(*waits).values(**brought))).rowcount)


async def needs_of(connection: AsyncConnection, ids: Collection[str]) -> dict[str, dict[str, str]]:
    """By the name that each of these calls it, the job that it needs."""
    if not ids:
        return {}
    (found,) = await trips.ask(connection, Call(_needs_of(connection.dialect.name), [listed(ids)]))
    needs: dict[str, dict[str, str]] = {job_id: {} for job_id in ids}
    for row in found:
        needs[row["job_id"]][row["name"]] = row["needs"]
    return needs


@cache
def _needs_of(dialect: str) -> Select[Any]:
    return select(edges.c.job_id, edges.c.name, edges.c.needs).where(among_listed(dialect, edges.c.job_id))


async def outcomes(connection: AsyncConnection, ids: Collection[str]) -> dict[str, Outcome]:
    if not ids:
        return {}
    (found,) = await trips.ask(connection, Call(_outcomes(connection.dialect.name), [listed(ids)]))
    return {row["id"]: rows.read_outcome(row) for row in found}


@cache
def _outcomes(dialect: str) -> Select[Any]:
    return select(*(jobs.c[name] for name in _OF_AN_OUTCOME)).where(among_listed(dialect, jobs.c.id))


def write(connection: AsyncConnection, changes: Sequence[Begun], now: float) -> None:
    """Those that end by it are marked as passed on."""
    begun = [rows.begun_row(c.job, c.unmet, c.due_at, now if c.job.state.final else None) for c in changes]
    trips.later(connection, updating(connection, jobs, begun))
    # A WAIT whose time has begun still waits.
    feed_changes.of(connection).states(each.job for each in changes if each.job.state is not State.WAITING)


async def some_workflows(connection: AsyncConnection, ids: Collection[str]) -> dict[str, Workflow]:
    found = await connection.execute(select(workflows).where(among(connection, workflows.c.id, ids)))
    return {row["id"]: rows.read_workflow(row) for row in found.mappings()}


async def sizes(connection: AsyncConnection, workflow_ids: Collection[str]) -> dict[str, int]:
    """How many nodes each has, those that were replaced among them."""
    its = jobs.c.workflow_id
    query = select(its, func.count()).where(among(connection, its, workflow_ids)).group_by(its)
    found = await connection.execute(query)
    return {row[0]: row[1] for row in found}


async def queues_of(connection: AsyncConnection, names: Collection[str]) -> dict[str, str]:
    """The queues of these tasks, as far as workers have announced them."""
    if not names:
        return {}
    found = await connection.execute(select(tasks.c.name, tasks.c.queue).where(among(connection, tasks.c.name, names)))
    return {name: queue for name, queue in found if queue}


async def replace(connection: AsyncConnection, by: Mapping[str, str]) -> None:
    """Whoever needs one of these jobs, needs the other from now on."""
    await update_rows(connection, jobs, [{"id": old, "replaced_by": new} for old, new in by.items()])
    other = select(jobs.c.replaced_by).where(jobs.c.id == edges.c.needs).scalar_subquery()
    await connection.execute(update(edges).where(among(connection, edges.c.needs, by)).values(needs=other))


def set_open(connection: AsyncConnection, by: Mapping[str, int], at: float) -> None:
    """What is open of each now."""
    opened = [{"id": workflow_id, "open": number, "changed_at": at} for workflow_id, number in by.items()]
    trips.later(connection, updating(connection, workflows, opened))


async def open_more(connection: AsyncConnection, by: Mapping[str, int], at: float) -> list[Workflow]:
    """Add to what is open of each, or take from it; returns those that have nothing open any more."""
    if not by:
        return []
    await trips.flush(connection)
    opened = [{"id": workflow_id, "open": more, "changed_at": at} for workflow_id, more in by.items()]
    found = await add_to_rows(connection, workflows, "open", opened)
    return [rows.read_workflow(row) for row in found if row["open"] == 0]


def end(connection: AsyncConnection, ended: Sequence[Workflow]) -> None:
    names = ("id", "state", "reason", "finished_at")
    over = [{name: getattr(each, name) for name in names} for each in ended]
    trips.later(connection, updating(connection, workflows, over))
    for each in ended:
        feed_changes.of(connection).workflow(each, each.finished_at or each.changed_at)


async def failures(connection: AsyncConnection, workflow_ids: Collection[str]) -> dict[str, str]:
    """Of those of these workflows that have failed the reason: that of the node that failed first of itself."""
    if not workflow_ids:
        return {}
    its = jobs.c
    ended_badly = its.state.in_([State.FAILURE.value, State.REVOKED.value])
    query = (
        select(its.workflow_id, its.reason, its.plan)
        .where(among(connection, its.workflow_id, workflow_ids), its.replaced_by.is_(None))
        .where(ended_badly, func.coalesce(its.reason, "") != Reason.SKIPPED.value)
        .order_by(its.finished_at, its.seq)
    )
    found = [row for row in (await connection.execute(query)).mappings() if not rows.read_plan(row).continues]
    found.sort(key=lambda row: row["reason"] == Reason.UPSTREAM_FAILED)
    reasons: dict[str, str] = {}
    for row in found:
        reasons.setdefault(row["workflow_id"], row["reason"] or Reason.ERROR.value)
    return reasons
