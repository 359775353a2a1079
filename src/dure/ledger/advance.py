"""Passing the end of a node on to those that need it, in the transaction that records it.

A node's end is passed on once: `passed_on_at` says so, and whoever ends or begins a node has locked its workflow's row
before, so of two ledgers that record ends of one workflow the second sees what the first has done. It goes in rounds.
A round tells the dependants of what has ended, begins those that need nothing more, and ends those that cannot begin;
what ends thereby is the next round's. A round takes the same few statements, however many nodes there are. At last the
open nodes of each workflow are counted, and one that has none left ends.

What the caller gets are jobs to publish after the commit. Should it die before, they are due, and a relay takes them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from msgspec import structs
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.event import JobEvent
from dure.job import Job, State
from dure.ledger import folding, nodes, rows, trips, writes
from dure.ledger.beginning import Begun, Items, Told, Waiting, begun, closed, hindered, weigh
from dure.ledger.bulk import Call, among_listed, listed
from dure.ledger.expansion import Plot, bounded, made, of_items, of_result
from dure.ledger.tables import jobs, workflows
from dure.workflow import Edge, Flow, NewNode, Outcome, Plan, Workflow

_AHEAD = 50  # ends, of whose dependants asking costs less than a trip
_QUEUE = "celery"  # Celery's own default, where neither the task nor the workflow names one


async def lock(connection: AsyncConnection, workflow_ids: Collection[str]) -> dict[str, Workflow]:
    """Lock these workflows, before any of their jobs; whoever ends or begins a node does this first."""
    if not workflow_ids:
        return {}
    found = await connection.execute(_lock(connection.dialect.name), listed(workflow_ids))
    return {row["id"]: rows.read_workflow(row) for row in found.mappings()}


@cache
def _lock(dialect: str) -> Select[Any]:
    return select(workflows).where(among_listed(dialect, workflows.c.id)).order_by(workflows.c.id).with_for_update()


async def lock_of(connection: AsyncConnection, job_ids: Collection[str]) -> None:
    """Lock the workflows that these jobs are nodes of."""
    if job_ids:
        await connection.execute(_lock_of(connection.dialect.name), listed(job_ids))


@cache
def _lock_of(dialect: str) -> Select[Any]:
    its = select(jobs.c.workflow_id).where(among_listed(dialect, jobs.c.id)).scalar_subquery()
    return (
        select(workflows.c.id, workflows.c.open)
        .where(workflows.c.id.in_(its))
        .order_by(workflows.c.id)
        .with_for_update()
    )


class Known(NamedTuple):
    """What is known of a batch of events once all that it is about is locked: the rows of its jobs, how many nodes are
    open of the workflows that these are of, and what was asked of dependants."""

    rows: trips.Found
    open: Mapping[str, int]
    ahead: nodes.Ahead | None = None


_NOTHING = Known((), {})


async def lock_batch(connection: AsyncConnection, events: Sequence[JobEvent]) -> Known:
    """Lock what these events may change, workflows first, and ask in one trip what passing on will ask of a few."""
    ids = {event.job_id for event in events}
    if not ids:
        return _NOTHING
    nodes_told = {event.job_id for event in events if event.root_id not in (None, event.job_id)}
    ending = {event.job_id for event in events if event.state.final} & nodes_told
    is_cheap = trips.saves(connection) and 0 < len(ending) <= _AHEAD
    further = nodes.ahead(connection, ending) if is_cheap else []
    workflows_of = Call(_lock_of(connection.dialect.name), [listed(ids)])
    its, found, *answers = await trips.ask(connection, workflows_of, folding.lock(connection, ids), *further)
    opened = {row["id"]: row["open"] for row in its}
    return Known(found, opened, nodes.read_ahead(ending, *answers) if answers else None)


async def pass_on(connection: AsyncConnection, ended: Iterable[Job], now: float, *, lease: float) -> list[Job]:
    """Tell the dependants of these, as far as they are nodes and have ended, which is written already.

    Returns the jobs to publish; a relay takes them `lease` seconds from now, if nobody has.
    """
    told = [job for job in ended if job.workflow_id is not None and job.state.final]
    if not told:
        return []
    fresh = await _marked(connection, told, now)
    released = await _Advance(connection, now, lease).run(fresh, ())
    await trips.flush(connection)
    return released


async def pass_on_folded(
    connection: AsyncConnection, folded: folding.Folded, known: Known, now: float, *, lease: float
) -> list[Job]:
    """As `pass_on` the ends of a batch. What this writes last travels with the commit."""
    if not folded.ended:
        return []
    changed = {job.id for job in folded.changed}
    if known.ahead is not None and any(each.edge.job_id in changed for each in known.ahead.told):
        known = known._replace(ahead=None)  # what was asked may not be so any more
    return await _Advance(connection, now, lease, known).run(folded.ended, ())


async def _marked(connection: AsyncConnection, ended: Sequence[Job], now: float) -> list[nodes.Ended]:
    """Those that were not passed on before."""
    await trips.flush(connection)
    plans = await nodes.mark_passed_on(connection, [job.id for job in ended], now)
    return [nodes.Ended(job, plans[job.id]) for job in ended if job.id in plans]


async def begin(connection: AsyncConnection, job_ids: Collection[str], now: float, *, lease: float) -> list[Job]:
    """Begin those of these WAITING nodes that have nothing unmet, as after they were inserted, or wait anew; the time
    of a WAIT begins where its signal is all that it lacks. Returns the jobs to publish."""
    if not job_ids:
        return []
    released = await _Advance(connection, now, lease).run((), job_ids)
    await trips.flush(connection)
    return released


def beginners(flow: Flow) -> list[NewNode]:
    """Its nodes that `begin` is to be told of once they are inserted."""
    return [node for node in flow.nodes if _may_begin(node)]


async def signalled(connection: AsyncConnection, job: Job, payload: Any, now: float, *, lease: float) -> list[Job]:
    """The signal of a WAIT has come; it ends once its needs are met, too. Only the first signal counts. Returns the
    jobs to publish."""
    if not await nodes.keep_signal(connection, job.id, payload, now):
        return []
    return await begin(connection, [job.id], now, lease=lease)


class _Change(NamedTuple):
    """What becomes of a node, and what is made of it where it is a map."""

    begun: Begun
    plan: Plan
    plot: Plot | None = None


class _Advance:
    """One way through a transaction, from what has ended to what begins."""

    def __init__(self, connection: AsyncConnection, now: float, lease: float, known: Known = _NOTHING) -> None:
        self._connection = connection
        self._now = now
        self._lease = lease
        self._known = known
        self._released: list[Job] = []
        self._opened: Counter[str] = Counter()

    async def run(self, ended: Sequence[nodes.Ended], ready: Collection[str]) -> list[Job]:
        while ended or ready:
            ended, ready = await self._round(ended, ready)
        await self._count()
        return self._released

    async def _round(self, ended: Sequence[nodes.Ended], ready: Collection[str]) -> tuple[list[nodes.Ended], list[str]]:
        """Returns what has ended by it, and those of the nodes made by it that may begin."""
        self._opened.subtract(str(job.workflow_id) for job, _ in ended)
        plots = [plot for job, plan in ended if (plot := of_result(job, plan)) is not None]
        replaced = {plot.maker.id for plot in plots}  # who needs these waits on, for what is made of them

        changes = await self._tell({job.id: job for job, _ in ended if job.id not in replaced}, ready)
        self._known = self._known._replace(ahead=None)
        nodes.write(self._connection, [change.begun for change in changes], self._now)
        plots += [change.plot for change in changes if change.plot is not None]
        self._released += [change.begun.job for change in changes if change.begun.job.state is State.ACCEPTED]

        failed, may_begin = await self._make(plots)
        over = [nodes.Ended(change.begun.job, change.plan) for change in changes if change.begun.job.state.final]
        return over + failed, may_begin

    async def _tell(self, ended: Mapping[str, Job], ready: Collection[str]) -> list[_Change]:
        """Tell those that need these; what becomes of them and of the ready ones."""
        told = await self._dependants(ended)
        weighed = weigh(told, ended)
        nodes.lower_unmet(self._connection, {key: left for key, left in weighed.left.items() if left})
        found = await self._waiting(weighed.touched.union(ready), weighed.left)
        stopped = [
            _Change(hindered(node, edge, ended[edge.needs], self._now), node.plan)
            for node in found
            if (edge := weighed.hindered.get(node.job.id)) is not None
        ]
        begins = [node for node in found if node.is_ready and node.job.id not in weighed.hindered]
        return stopped + await self._begin(begins, [each.edge for each in told], ended)

    async def _dependants(self, ended: Collection[str]) -> list[Told]:
        ahead = self._known.ahead
        if ahead is None or not ahead.answers(ended):
            return await nodes.dependants(self._connection, ended)
        return [each for each in ahead.told if each.edge.needs in ended]

    async def _waiting(self, ids: Collection[str], left: Mapping[str, int]) -> list[Waiting]:
        ahead = self._known.ahead
        nearly = [] if ahead is None else [node for node in ahead.nearly if node.job.id in ids]
        if len(nearly) < len(ids):
            return await nodes.waiting(self._connection, ids, left)
        return [structs.replace(node, unmet=left.get(node.job.id, node.unmet)) for node in nearly]

    async def _begin(self, ready: Sequence[Waiting], told: Iterable[Edge], ended: Mapping[str, Job]) -> list[_Change]:
        """`told` and `ended` are what is known without asking: mostly a node's last need is its only one."""
        needs: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for edge in told:
            needs[edge.job_id][edge.name] = edge.needs
        unknown = [node.job.id for node in ready if node.lacks(needs[node.job.id])]
        needs.update(await nodes.needs_of(self._connection, unknown))
        referred = {
            node.job.id: {name: need for name, need in needs[node.job.id].items() if name in node.names}
            for node in ready
        }
        wanted = {need for its in referred.values() for need in its.values()}
        outcomes = {job_id: Outcome.of(ended[job_id]) for job_id in wanted.intersection(ended)}
        outcomes |= await nodes.outcomes(self._connection, wanted.difference(ended))
        changes = []
        for node in ready:
            its = referred[node.job.id]
            change = begun(node, {name: outcomes[need] for name, need in its.items()}, self._now, self._lease)
            if isinstance(change, Items):
                changes.append(_Change(change.begun, node.plan, of_items(change, needs[node.job.id])))
            else:
                changes.append(_Change(change, node.plan))
        return changes

    async def _make(self, plots: Sequence[Plot]) -> tuple[list[nodes.Ended], list[str]]:
        """Insert what maps and returned workflows are made into; returns what failed at once, and what may begin."""
        if not plots:
            return [], []
        await trips.flush(self._connection)
        its = {plot.workflow_id for plot in plots}
        found = await nodes.some_workflows(self._connection, its)
        running = {key: each for key, each in found.items() if _may_grow(each)}
        plots = bounded([p for p in plots if p.workflow_id in running], await nodes.sizes(self._connection, its))
        queues = await nodes.queues_of(self._connection, {task for plot in plots for task in plot.tasks})
        news = [made(plot, self._now, self._lease, queues, running[plot.workflow_id].queue or _QUEUE) for plot in plots]
        await nodes.replace(self._connection, {new.maker.id: new.value.job.id for new in news})
        inserted = [node for new in news for node in (*new.nodes, new.value)]
        await writes.insert_nodes(self._connection, inserted, [edge for new in news for edge in new.edges])
        self._opened.update(str(node.job.workflow_id) for node in inserted)
        self._released += [node.job for node in inserted if node.job.state is State.ACCEPTED]
        failed = [node.job for node in inserted if node.job.state.final]
        may_begin = [node.job.id for node in inserted if _may_begin(node)]
        return await _marked(self._connection, failed, self._now), may_begin

    async def _count(self) -> None:
        """Write what is open of each workflow, and end those that have nothing open."""
        changed = {key: by for key, by in self._opened.items() if by}
        known = self._known.open
        going_on = {key: known[key] + by for key, by in changed.items() if key in known and known[key] + by > 0}
        nodes.set_open(self._connection, going_on, self._now)
        others = {key: by for key, by in changed.items() if key not in going_on}
        done = await nodes.open_more(self._connection, others, self._now)
        over = [workflow for workflow in done if not workflow.state.final]  # at its deadline one ended before
        reasons = await nodes.failures(self._connection, [workflow.id for workflow in over])
        nodes.end(self._connection, [closed(each, reasons.get(each.id), self._now) for each in over])


def _may_begin(node: NewNode) -> bool:
    return node.job.state is State.WAITING and Waiting.of(node).is_ready


def _may_grow(workflow: Workflow) -> bool:
    return not workflow.state.final and workflow.cancel_requested_at is None
