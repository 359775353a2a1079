"""What is asked of the ledger for a submission, and from when on a relay may publish it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from dure.client.flows import FlowDraft
from dure.client.leases import LEASE
from dure.client.submission import Draft
from dure.job import Job, State
from dure.ledger import Idempotency, Receipt, Request

_ROWS_AT_ONCE = 10  # of a workflow: they are written together, and weigh no more than a request of its own


def jobs_request(drafts: Sequence[Draft], key: Idempotency | None) -> Request:
    return Request(
        jobs=tuple((each.job, 0.0) for each in drafts),
        unique={each.job.id: each.unique for each in drafts if each.unique is not None},
        idempotency=key,
    )


def flow_request(draft: FlowDraft, key: Idempotency | None) -> Request:
    return Request(flow=draft.flow, idempotency=key)


def weight(request: Request) -> int:
    """How many plain requests it counts for, so that no transaction holds many large workflows."""
    flow = request.flow
    return 1 if flow is None else 1 + (len(flow.nodes) + len(flow.edges)) // _ROWS_AT_ONCE


def due(requests: Sequence[Request], now: float, room: int) -> list[Request]:
    """With their times, reckoned at the commit, for they may have waited.

    What is scheduled is due then. Of the rest, `room` jobs are published by this process, and due for a relay
    afterwards; those beyond are a relay's at once.
    """
    clock = _Clock(now, room)
    return [clock.set(request) for request in requests]


def all_new(request: Request) -> Receipt:
    jobs = tuple(job for job, _ in request.jobs)
    return Receipt(jobs=jobs, created=frozenset(job.id for job in jobs))


class _Clock:
    def __init__(self, now: float, room: int) -> None:
        self._now = now
        self._room = room

    def set(self, request: Request) -> Request:
        if request.flow is None:
            return structs.replace(request, jobs=tuple((job, self._due_at(job)) for job, _ in request.jobs))
        nodes = tuple(
            node if node.due_at is None else structs.replace(node, due_at=self._due_at(node.job))
            for node in request.flow.nodes
        )
        return structs.replace(request, flow=structs.replace(request.flow, nodes=nodes))

    def _due_at(self, job: Job) -> float:
        if job.state is State.SCHEDULED and job.eta is not None:
            return job.eta
        self._room -= 1
        return self._now if self._room < 0 else self._now + LEASE
