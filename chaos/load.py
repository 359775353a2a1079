"""A steady load over HTTP: job after job at its time, each submitted until it was answered, with one key of its own."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

ACCEPTED = {200, 202}
_AT_ONCE = 64
_TIMEOUT = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


@dataclass
class Receipts:
    """What the callers were told."""

    ids: dict[int, list[str]] = field(default_factory=dict)
    """The ids of each accepted job in the order of the answers: one, unless the same key was answered with several."""
    errors: Counter[str] = field(default_factory=Counter)
    """Requests that were not accepted, by status or kind of failure. Each was made again."""

    @property
    def accepted(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Target:
    """Where jobs are submitted: several addresses of one service, used in turns."""

    urls: Sequence[str]
    path: str


class Load:
    def __init__(self, target: Target, *, jobs: int, rate: float, run: str) -> None:
        self._addresses = itertools.cycle([url + target.path for url in target.urls])
        self._jobs = jobs
        self._rate = rate
        self._run = run
        self._numbers = iter(range(jobs))
        self.receipts = Receipts()

    async def submit(self, *, patience: float) -> None:
        """Submit every job; what is not accepted within `patience` seconds is given up."""
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._submit_in_turn(patience))

    async def _submit_in_turn(self, patience: float) -> None:
        # A client each: one pool of so many connections costs more than all requests together.
        async with httpx.AsyncClient(verify=False, timeout=_TIMEOUT, trust_env=False) as client:
            for number in self._numbers:
                due = self._began + number / self._rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._submit_one(client, number, time.monotonic() + patience)

    async def _submit_one(self, client: httpx.AsyncClient, number: int, give_up: float) -> None:
        pause = _FIRST_PAUSE
        while not await self._submit_once(client, number) and time.monotonic() < give_up:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _submit_once(self, client: httpx.AsyncClient, number: int) -> bool:
        headers = {"Idempotency-Key": f"{self._run}-{number}"}
        try:
            response = await client.post(next(self._addresses), json={"number": number}, headers=headers)
        except httpx.TransportError as exc:
            self.receipts.errors[type(exc).__name__] += 1
            return False
        if response.status_code not in ACCEPTED:
            self.receipts.errors[str(response.status_code)] += 1
            return False
        self.receipts.ids.setdefault(number, []).append(response.json()["id"])
        return True
