"""What readers of jobs ask the ledger, together: those who ask the same share one answer, and all share one query for
the records. Who asks while others are answered is answered next, so however many watch, the ledger and this process
are asked no more than they can answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from dure.batch import Batcher
from dure.entry import Position
from dure.job import Job
from dure.ledger import JobEntries, Ledger

_PAGE = 1000
_AT_ONCE = 50
_MOST = 1_000_000


class Answer(NamedTuple):
    """The job's record, and what it told behind the place that was asked for."""

    job: Job | None
    entries: JobEntries


class Asking:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._records: Batcher[str, Job | None] = Batcher(self._read_records, size=_AT_ONCE, bound=_MOST)
        self._feeds: Batcher[tuple[str, Position], Answer] = Batcher(self._read_feeds, size=_AT_ONCE, bound=_MOST)

    async def job(self, job_id: str) -> Job | None:
        """Raises LedgerUnavailable."""
        return await self._records.put(job_id)

    async def feed(self, job_id: str, after: Position) -> Answer:
        """Raises LedgerUnavailable."""
        return await self._feeds.put((job_id, after))

    async def close(self) -> None:
        await asyncio.gather(self._records.close(), self._feeds.close())

    async def _read_records(self, ids: Sequence[str]) -> Sequence[Job | None]:
        found = await self._ledger.some_jobs(sorted(set(ids)))
        return [found.get(job_id) for job_id in ids]

    async def _read_feeds(self, asked: Sequence[tuple[str, Position]]) -> Sequence[Answer]:
        # The records first: where one says that the job has ended, the entries are there.
        jobs = await self._read_records([job_id for job_id, _ in asked])
        places = list(dict.fromkeys(asked))
        told = await asyncio.gather(*(self._ledger.entries(*place, limit=_PAGE) for place in places))
        entries = dict(zip(places, told, strict=True))
        return [Answer(job, entries[place]) for job, place in zip(jobs, asked, strict=True)]
