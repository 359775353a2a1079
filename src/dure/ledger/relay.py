"""Publishes rows that are due: scheduled jobs whose time has come, accepted ones that were never confirmed, and
cancellations that the broker does not keep yet.

A claim moves `due_at` ahead by a lease, so several relays share the work; while a row is being published the lease is
renewed, and the confirmation clears it. The lease of a relay that died ends by itself, and another takes its rows over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from dure.job import Job
from dure.ledger.ledger import Ledger
from dure.link import Link
from dure.service import Loop

_LOOK_SECONDS = 0.1
_AWAY_SECONDS = 0.5
_BATCH = 500

# After the ledger was away, whoever has confirmations to write down does that first: what is marked is not due.
_AFTER_FAILURE_SECONDS = 1.0


class Publishing(Protocol):
    @property
    def room(self) -> int: ...
    async def publish(self, jobs: Sequence[Job]) -> None: ...


class Relay(Loop):
    name = "relay"

    def __init__(self, ledger: Ledger, link: Link, publisher: Publishing, *, lease: float) -> None:
        super().__init__()
        self._ledger = ledger
        self._link = link
        self._publisher = publisher
        self._lease = lease
        self._ran_before = False

    async def run(self) -> None:
        if self._ran_before:
            await asyncio.sleep(_AFTER_FAILURE_SECONDS)
        self._ran_before = True
        while True:
            # Claimed rows are nobody else's until the lease ends, so none is claimed for a broker that is away.
            limit = min(_BATCH, self._publisher.room) if self._link.connected else 0
            due = await self._claim(limit) if limit else []
            self.alive()
            if due:
                await self._send(due)
            if len(due) < _BATCH:
                await asyncio.sleep(_LOOK_SECONDS if self._link.connected else _AWAY_SECONDS)

    async def _claim(self, limit: int) -> list[Job]:
        if await self._ledger.next_due() > time.time():
            return []
        return await self._ledger.claim_due(time.time(), lease=self._lease, limit=limit)

    async def _send(self, due: Sequence[Job]) -> None:
        to_publish = [job for job in due if job.cancel_requested_at is None and not job.state.final]
        if to_publish:
            await self._publisher.publish(to_publish)
        cancelled = [job.id for job in due if job.cancel_requested_at is not None]
        if cancelled:
            await self._link.revoke(cancelled, terminate=True)
            await self._ledger.mark_revoked(cancelled)
