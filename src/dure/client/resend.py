"""Sending ended jobs again: one, or all that a filter matches. Nodes are run again in their workflows."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from msgspec import structs

from dure.client.again import Edits, Resent, Skipped, draft_again
from dure.client.flow_retry import retry_node, retry_nodes
from dure.client.submission import Draft
from dure.errors import FieldError, InvalidSubmission
from dure.job import FINAL, Job, State
from dure.ledger import JobFilter
from dure.options import read_options

if TYPE_CHECKING:
    from dure.client.dure import Dure

_CHUNK = 500
_SHOWN = 20
_SLOWEST = 0.001
_ENDED = ", ".join(sorted(FINAL))


async def resend(dure: Dure, job: Job, edits: Edits) -> Job:
    """The new job. Raises JobNotEnded or InvalidSubmission, of a node UnknownNode too."""
    if job.workflow_id is not None:
        return await retry_node(dure, job, edits)
    return (await dure.accept([await draft_again(dure, job, edits)])).jobs[0]


async def resend_many(
    dure: Dure, wanted: JobFilter, edits: Edits, *, rate: float | None, limit: int, dry_run: bool
) -> Resent:
    wanted = structs.replace(wanted, state=_ended_state(wanted), retried=False)
    if rate is not None and not _SLOWEST <= rate < math.inf:
        raise InvalidSubmission([FieldError(("rate",), f"must be at least {_SLOWEST} jobs a second")])
    if limit < 1:
        raise InvalidSubmission([FieldError(("limit",), "must be 1 job or more")])
    read_options(edits.options, time.time())  # a wrong option is the request's fault, not that of each job
    found = await dure.ledger.oldest_jobs(wanted, limit=min(limit, _SHOWN) if dry_run else limit)
    matched = max(len(found), await dure.ledger.count_jobs(wanted))  # some may have been taken in between
    if dry_run:
        return Resent(matched=matched, jobs=tuple(found), dry_run=True)
    drafts: list[Draft] = []
    skipped: list[Skipped] = []
    single = [job for job in found if job.workflow_id is None]
    for job in single:
        try:
            drafts.append(await draft_again(dure, job, edits, len(drafts) / rate if rate is not None else 0.0))
        except InvalidSubmission as exc:
            skipped.append(Skipped(id=job.id, error=str(exc)))
    sent: list[Job] = []
    for start in range(0, len(drafts), _CHUNK):
        sent += (await dure.accept(drafts[start : start + _CHUNK])).jobs
    nodes = [job for job in found if job.workflow_id is not None]
    async for outcome in retry_nodes(dure, nodes, edits, first=len(drafts), rate=rate):
        if isinstance(outcome, Job):
            sent.append(outcome)
        else:
            skipped.append(outcome)
    return Resent(matched=matched, jobs=tuple(sent), skipped=tuple(skipped))


def _ended_state(wanted: JobFilter) -> State:
    state = wanted.state or State.FAILURE
    if not state.final:
        raise InvalidSubmission([FieldError(("state",), f"jobs that are {state} have not ended; give one of {_ENDED}")])
    return state
