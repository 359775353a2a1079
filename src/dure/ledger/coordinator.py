"""The clock of workflows: ends those whose time is over, and nodes that have waited for a signal long enough."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import structlog

from dure.errors import LinkError
from dure.event import JobEvent
from dure.job import Reason, State
from dure.ledger.ledger import Ledger
from dure.link import Link
from dure.service import Loop

log = structlog.get_logger("dure")

_LOOK_SECONDS = 1.0
_AT_ONCE = 1000


class Coordinator(Loop):
    """Several may run: each workflow is ended once. From `lease` seconds on the relay tells the broker."""

    name = "coordinator"

    def __init__(self, ledger: Ledger, link: Link, *, lease: float) -> None:
        super().__init__()
        self._ledger = ledger
        self._link = link
        self._lease = lease

    async def run(self) -> None:
        while True:
            await self.end_overdue(time.time())
            await self.end_waits(time.time())
            self.alive()
            await asyncio.sleep(_LOOK_SECONDS)

    async def end_waits(self, now: float) -> None:
        over = await self._ledger.expired_waits(now, limit=_AT_ONCE)
        ends = [JobEvent(job_id=job.id, state=State.FAILURE, reason=Reason.EXPIRED, at=now) for job in over]
        if ends:
            await self._ledger.record(ends)

    async def end_overdue(self, now: float) -> None:
        ended = await self._ledger.end_overdue(now, due_at=now + self._lease)
        for cancelled in ended:
            log.warning("a workflow's time is over and it ends", workflow=cancelled.workflow.id)
        told = [job_id for cancelled in ended for job_id in cancelled.told]
        if told and self._link.connected:
            with suppress(LinkError):  # else the relay tells the broker
                await self._link.revoke(told, terminate=True)
                await self._ledger.mark_revoked(told)
