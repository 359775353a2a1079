"""Reads the queue of dead letters: each ends its job, and is acknowledged once that is committed.

The row is where a dead letter lives on: with its reason, its error and its arguments, to be looked at and sent again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog
from prometheus_client import Counter

from dure import dead
from dure.dead import DeadLetter
from dure.ledger.ledger import Ledger
from dure.ledger.recorder import Recorder
from dure.link import Link
from dure.service import Loop

log = structlog.get_logger("dure")

_BATCH = 500
_WORD_SECONDS = 1.0  # a worker says why it gives a message up first, but in another queue: its word is to be the first

LETTERS = Counter("dure_dead_letters_total", "Messages that no worker could run to an end.", ["reason"])


class DeadLetters(Loop):
    name = "dead-letters"

    def __init__(self, ledger: Ledger, link: Link, recorder: Recorder) -> None:
        super().__init__()
        self._ledger = ledger
        self._link = link
        self._recorder = recorder

    async def run(self) -> None:
        feed = await self._link.dead_letters()
        try:
            self.alive()
            while True:
                letters = await feed.batch(_BATCH)
                await asyncio.sleep(_WORD_SECONDS)
                await self._bury(letters)
                await feed.ack()
                self.alive()
        finally:
            await feed.close()

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        now = time.time()
        events = {}
        for letter in letters:
            LETTERS.labels(letter.reason).inc()
            event = dead.event(letter, now)
            if event is None:
                log.warning("a dead letter is no job's", queue=letter.queue, body=letter.body[:500])
            else:
                events[event.job_id] = event
        await self._recorder.record(list(events.values()))
        told = {letter.job_id: found for letter in letters if (found := dead.arguments(letter)) is not None}
        known = {job_id: found for job_id, found in told.items() if job_id in events}
        if known:
            await self._ledger.fill_arguments(known)
