"""Leases on rows that this process publishes.

A row that is accepted or claimed is due again after LEASE seconds, when any relay takes it over; so a process that
dies holds nobody up for longer. Publishing is mostly done within milliseconds. Where it takes longer, because broker
or ledger are slow, the lease is renewed for as long as this process is at it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from dure.errors import LedgerUnavailable
from dure.ledger import Ledger

log = structlog.get_logger("dure")

LEASE = 4.0
_RENEW_SECONDS = LEASE / 4
_BATCH = 1000  # so that a lease is not mostly over when thousands are written


class Leases:
    """The ids that are being published here."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._held: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, ids: Iterable[str]) -> None:
        now = time.monotonic()
        for job_id in ids:
            self._held[job_id] = now
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._renew(), name="dure-leases")

    def release(self, job_id: str) -> None:
        self._held.pop(job_id, None)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(_RENEW_SECONDS)
            long_ago = time.monotonic() - _RENEW_SECONDS
            ids = sorted(job_id for job_id, since in self._held.items() if since <= long_ago)
            try:
                for start in range(0, len(ids), _BATCH):
                    await self._ledger.renew_due(ids[start : start + _BATCH], time.time() + LEASE)
            except (LedgerUnavailable, SQLAlchemyError) as exc:
                log.warning("leases could not be renewed; jobs may be published twice", error=str(exc))
