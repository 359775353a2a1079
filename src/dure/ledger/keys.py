"""Jobs that are accepted once: idempotency keys and unique keys, in the transaction that inserts the jobs.

A key is a row whose insertion makes a second submitter wait until the first has committed, on both databases. Whoever
finds the key taken then looks at its holder in a statement of its own, which sees what was committed meanwhile. Keys
are taken in their sorted order, idempotency keys before unique ones, so no two transactions wait for each other.

An idempotency key names the jobs of one request until it expires. A unique key names one job; whether that job still
holds it is read from the job itself, so nothing has to let go of a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import and_, delete, false, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from dure.errors import IdempotencyConflict
from dure.job import FINAL, Job, Unique, Until
from dure.ledger import rows, writes
from dure.ledger.tables import idempotency_keys, jobs, unique_keys, workflows
from dure.workflow import Flow, Workflow


class Idempotency(Struct, frozen=True, kw_only=True):
    """A request's key; `fingerprint` tells one request from another."""

    key: str
    fingerprint: str
    expires_at: float


class Request(Struct, frozen=True, kw_only=True):
    """Jobs that are accepted together, each with the time from which the relay may publish it; or a workflow."""

    jobs: tuple[tuple[Job, float], ...] = ()
    flow: Flow | None = None
    unique: Mapping[str, Unique] = {}
    idempotency: Idempotency | None = None

    @property
    def is_plain(self) -> bool:
        """Whether its jobs are rows and nothing else."""
        return not self.unique and self.idempotency is None and self.flow is None

    @property
    def all_jobs(self) -> tuple[Job, ...]:
        """Also the nodes of its workflow."""
        nodes = () if self.flow is None else self.flow.nodes
        return (*(job for job, _ in self.jobs), *(node.job for node in nodes))

    @property
    def ids(self) -> tuple[str, ...]:
        """What an idempotency key names: the jobs, or the workflow."""
        return tuple(job.id for job, _ in self.jobs) if self.flow is None else (self.flow.workflow.id,)


class Receipt(Struct, frozen=True, kw_only=True):
    """What became of a request: its jobs in their order, new ones or those that hold the key.

    `replayed` says that the whole request was made before; its jobs are then as they are now, of a workflow only its
    record is there.
    """

    jobs: tuple[Job, ...]
    created: frozenset[str]
    workflow: Workflow | None = None
    replayed: bool = False


Outcome = Receipt | IdempotencyConflict


async def accept_once(connection: AsyncConnection, requests: Sequence[Request], now: float) -> list[Outcome]:
    """For each request its receipt, or the conflict; a request in conflict leaves nothing behind."""
    first = await _claim_requests(connection, [r for r in requests if r.idempotency is not None], now)
    fresh = [r for r in requests if r.idempotency is None or first[r.idempotency.key] == _ids(r)]
    holders = await _claim_unique(connection, fresh, now)
    new = [entry for r in fresh for entry in r.jobs if entry[0].id not in holders]
    if new:
        await writes.insert_jobs(connection, new)
    flows = [r.flow for r in fresh if r.flow is not None]
    if flows:
        await writes.insert_flows(connection, flows)
    known = await _known(connection, first, holders)
    repeated = [first[r.idempotency.key].ids[0] for r in requests if r.flow is not None and r.idempotency is not None]
    workflows_known = await _workflows(connection, repeated)
    outcomes: list[Outcome] = []
    for request in requests:
        key = request.idempotency
        if key is None or first[key.key] == _ids(request):
            receipt = _receipt(request, holders, known)
            outcomes.append(receipt)
            if key is not None and holders:
                first[key.key] = await _correct(connection, key, receipt)
        else:
            outcomes.append(_replay(key, first[key.key], known, workflows_known))
    return outcomes


class _Ids(Struct, frozen=True):
    """The jobs that an idempotency key names, and of which request."""

    fingerprint: str
    ids: tuple[str, ...]


def _ids(request: Request) -> _Ids:
    assert request.idempotency is not None  # noqa: S101 - asked only of those that have one
    return _Ids(request.idempotency.fingerprint, request.ids)


async def _claim_requests(connection: AsyncConnection, requests: Sequence[Request], now: float) -> dict[str, _Ids]:
    """Who holds each key after all have tried."""
    wanted: dict[str, dict[str, Any]] = {}
    for request in requests:
        key = request.idempotency
        if key is not None:
            row = {"key": key.key, "fingerprint": key.fingerprint, "expires_at": key.expires_at}
            wanted.setdefault(key.key, row | {"job_ids": _encoded(_ids(request).ids)})
    if not wanted:
        return {}
    insert = writes.upsert(connection, idempotency_keys)
    told = insert.excluded
    claim = insert.on_conflict_do_update(
        index_elements=["key"],
        set_={name: told[name] for name in ("fingerprint", "job_ids", "expires_at")},
        where=idempotency_keys.c.expires_at <= now,
    )
    await connection.execute(claim, [wanted[key] for key in sorted(wanted)])
    found = await connection.execute(select(idempotency_keys).where(idempotency_keys.c.key.in_(list(wanted))))
    return {row.key: _Ids(row.fingerprint, msgspec.json.decode(row.job_ids, type=tuple[str, ...])) for row in found}


async def _claim_unique(connection: AsyncConnection, requests: Sequence[Request], now: float) -> dict[str, str]:
    """For each job that may not be made, the one that holds its key."""
    wanted = [(key, job.id) for r in requests for job, _ in r.jobs if (key := r.unique.get(job.id)) is not None]
    if not wanted:
        return {}
    first: dict[str, tuple[Unique, str]] = {}
    for key, job_id in wanted:
        first.setdefault(key.key, (key, job_id))
    claims = [_unique_row(*first[name]) for name in sorted(first)]
    insert = writes.upsert(connection, unique_keys)
    # A key that is taken is not changed, but locked, so that it is still there when its holder is looked at.
    lock = insert.on_conflict_do_update(index_elements=["key"], set_={"key": insert.excluded.key}, where=false())
    await connection.execute(lock, claims)
    found = await connection.execute(select(unique_keys).where(unique_keys.c.key.in_(list(first))))
    taken = {row.key: row for row in found}
    others = [row.job_id for row in taken.values() if row.job_id != first[row.key][1]]
    states = await _found(connection, others)
    holder = {}
    for name, row in taken.items():
        key, job_id = first[name]
        if row.job_id != job_id and _holds(row, states.get(row.job_id), now):
            holder[name] = row.job_id
        else:
            holder[name] = job_id
            if row.job_id != job_id:
                values = _unique_row(key, job_id)
                await connection.execute(update(unique_keys).where(unique_keys.c.key == name).values(**values))
    return {job_id: holder[key.key] for key, job_id in wanted if holder[key.key] != job_id}


def _unique_row(key: Unique, job_id: str) -> dict[str, Any]:
    return {"key": key.key, "job_id": job_id, "until": key.until.value, "expires_at": key.expires_at}


def _holds(row: Any, job: Job | None, now: float) -> bool:
    if job is None:
        return False
    if row.until == Until.TIME:
        return bool((row.expires_at or 0.0) > now)
    if job.state.final:
        return False
    return row.until == Until.FINISHED or job.started_at is None


async def _known(connection: AsyncConnection, first: Mapping[str, _Ids], holders: Mapping[str, str]) -> dict[str, Job]:
    return await _found(connection, [*(job_id for held in first.values() for job_id in held.ids), *holders.values()])


async def _found(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, Job]:
    if not ids:
        return {}
    found = await connection.execute(select(jobs).where(jobs.c.id.in_(list(ids))))
    return {row["id"]: rows.read_job(row) for row in found.mappings()}


async def _workflows(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, Workflow]:
    if not ids:
        return {}
    found = await connection.execute(select(workflows).where(workflows.c.id.in_(list(ids))))
    return {row["id"]: rows.read_workflow(row) for row in found.mappings()}


def _receipt(request: Request, holders: Mapping[str, str], known: Mapping[str, Job]) -> Receipt:
    if request.flow is not None:
        jobs = tuple(node.job for node in request.flow.nodes)
        return Receipt(jobs=jobs, created=frozenset(job.id for job in jobs), workflow=request.flow.workflow)
    chosen = tuple(known[holders[job.id]] if job.id in holders else job for job, _ in request.jobs)
    return Receipt(jobs=chosen, created=frozenset(job.id for job, _ in request.jobs) - holders.keys())


def _replay(
    key: Idempotency, first: _Ids, known: Mapping[str, Job], workflows_known: Mapping[str, Workflow]
) -> Outcome:
    if first.fingerprint != key.fingerprint:
        return IdempotencyConflict(key.key)
    return Receipt(
        jobs=tuple(known[i] for i in first.ids if i in known),
        created=frozenset(),
        workflow=workflows_known.get(first.ids[0]),
        replayed=True,
    )


async def _correct(connection: AsyncConnection, key: Idempotency, receipt: Receipt) -> _Ids:
    """A request that was answered with another's job is answered so again."""
    held = _Ids(key.fingerprint, tuple(job.id for job in receipt.jobs))
    ours = idempotency_keys.c.key == key.key
    await connection.execute(update(idempotency_keys).where(ours).values(job_ids=_encoded(held.ids)))
    return held


async def drop_expired(connection: AsyncConnection, now: float, limit: int) -> int:
    """Forget keys that hold nothing any more; returns how many, at most about `limit`."""
    timed = and_(unique_keys.c.until == Until.TIME.value, func.coalesce(unique_keys.c.expires_at, 0.0) <= now)
    holder = and_(jobs.c.id == unique_keys.c.job_id, jobs.c.state.in_([state.value for state in sorted(FINAL)]))
    has_ended = select(jobs.c.id).where(holder).correlate(unique_keys).exists()
    ended = and_(unique_keys.c.until != Until.TIME.value, has_ended)
    gone = 0
    for table, is_over in ((idempotency_keys, idempotency_keys.c.expires_at <= now), (unique_keys, or_(timed, ended))):
        # A key that somebody holds on to is left for the next time: waiting for it, two could wait for each other.
        old = select(table.c.key).where(is_over).limit(limit).with_for_update(skip_locked=True)
        gone += (await connection.execute(delete(table).where(table.c.key.in_(old.scalar_subquery())))).rowcount
    return gone


def _encoded(ids: Any) -> str:
    return msgspec.json.encode(tuple(ids)).decode()
