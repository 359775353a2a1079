"""Publishes rows that are due: scheduled jobs whose time has come, and accepted ones that were never confirmed.

A claim moves `due_at` ahead by a lease, so several relays share the work, and a row whose relay died is due again
when the lease ends. The confirmation clears `due_at`.
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
_LEASE = 30.0
_BATCH = 500


class Publishing(Protocol):
    async def publish(self, jobs: Sequence[Job]) -> None: ...


class Relay(Loop):
    name = "relay"

    def __init__(self, ledger: Ledger, link: Link, publisher: Publishing) -> None:
        super().__init__()
        self._ledger = ledger
        self._link = link
        self._publisher = publisher

    async def run(self) -> None:
        while True:
            # Claimed rows are nobody else's until the lease ends, so none is claimed for a broker that is away.
            due = await self._claim() if self._link.connected else []
            self.alive()
            if due:
                await self._publisher.publish(due)
            if len(due) < _BATCH:
                await asyncio.sleep(_LOOK_SECONDS if self._link.connected else _AWAY_SECONDS)

    async def _claim(self) -> list[Job]:
        if await self._ledger.next_due() > time.time():
            return []
        return await self._ledger.claim_due(time.time(), lease=_LEASE, limit=_BATCH)
