"""One cell: a system, a load, and faults that strike while it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos import marks
from chaos.count import Tally, count
from chaos.faults import Fault
from chaos.faults.files import small_disk
from chaos.load import Load, Receipts
from chaos.network import Network
from chaos.processes import Keeper
from chaos.systems import Answer, System

_SHORTEST_LOAD = 8.0
_LONGEST_PAUSE = 4.0
_LONGEST_RECOVERY = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`rate` is the most jobs a second; few jobs are spread, so that `blows` fall among them, which is the least.

    `patience` is how many seconds without any progress, with everything healed, mean that nothing will come any more.
    """

    jobs: int = 10_000
    rate: float = 300.0
    blows: int = 3
    patience: float = 60.0
    keep: Path | None = None

    @property
    def seconds(self) -> float:
        return max(self.jobs / self.rate, _SHORTEST_LOAD)

    @property
    def pause(self) -> float:
        """Between the end of one blow and the next."""
        return min(_LONGEST_PAUSE, self.seconds / (self.blows + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    system: str
    faults: Sequence[str]
    jobs: int
    blows: int
    tally: Tally
    errors: Mapping[str, int]
    """Requests that were refused or failed while the faults lasted."""
    load_seconds: float
    quiet_seconds: float
    """From the end of load and faults until every job was known to have ended, or until patience was over. Asking after
    thousands of jobs takes its time too."""
    settled: bool
    """Whether every accepted job ended in the system's own view."""
    crashes: Mapping[str, int]
    """How often processes ended by themselves."""


async def run(kind: type[System], faults: Sequence[Fault], plan: Plan) -> Outcome:
    """Run one cell; several faults strike in turns."""
    async with _site(kind, faults, plan) as system:
        await system.start()
        async with Keeper(system.processes):
            load = Load(system.target, jobs=plan.jobs, rate=plan.jobs / plan.seconds, run=secrets.token_hex(4))
            over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                blows = group.create_task(_strike(system, faults, plan, over))
                began = time.monotonic()
                await load.submit(patience=plan.patience)
                loaded = time.monotonic()
                over.set()
            await asyncio.to_thread(system.heal)
            healed = time.monotonic()
            answers = await _until_quiet(system, load.receipts, plan.patience)
        return Outcome(
            system=kind.name,
            faults=[fault.name for fault in faults],
            jobs=plan.jobs,
            blows=blows.result(),
            tally=count(load.receipts.ids, marks.read(system.marks), answers, system.killed),
            errors=dict(load.receipts.errors),
            load_seconds=loaded - began,
            quiet_seconds=time.monotonic() - healed,
            settled=not _open(load.receipts, answers),
            crashes={process.name: process.crashes for process in system.processes if process.crashes},
        )


async def _strike(system: System, faults: Sequence[Fault], plan: Plan, over: asyncio.Event) -> int:
    """Blow after blow until the load is over, and as many as planned at least. How many it were."""
    blows = 0
    while True:
        if blows < plan.blows:
            await asyncio.sleep(plan.pause)
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), plan.pause)
            if over.is_set():
                return blows
        turn, which = divmod(blows, len(faults))
        await faults[which].inject(system, turn)
        blows += 1
        if blows < plan.blows or not over.is_set():
            await _until_recovered(system)


async def _until_recovered(system: System) -> None:
    """A blow finds something to hit only where the one before is over; a system that stays down is struck again."""
    deadline = time.monotonic() + _LONGEST_RECOVERY
    while not await system.ready() and time.monotonic() < deadline:
        await asyncio.sleep(0.2)


async def _until_quiet(system: System, receipts: Receipts, patience: float) -> Mapping[str, Answer]:
    """Ask until every job has ended, or nothing has moved for as long as `patience`; the last answers."""
    answers: dict[str, Answer] = {}
    left = _open(receipts, answers)
    moved = time.monotonic()
    ran = 0
    while left and time.monotonic() - moved < patience:
        answers |= await system.ask(left)
        before, left = len(left), _open(receipts, answers)
        seen = system.marks.stat().st_size if system.marks.exists() else 0
        if len(left) < before or seen != ran:
            moved, ran = time.monotonic(), seen
        await asyncio.sleep(0.2)
    return answers


def _open(receipts: Receipts, answers: Mapping[str, Answer]) -> list[str]:
    """Ids that were given out and are not known to have ended."""
    given = dict.fromkeys(job_id for ids in receipts.ids.values() for job_id in ids)
    return [job_id for job_id in given if job_id not in answers or not answers[job_id].final]


@contextlib.asynccontextmanager
async def _site(kind: type[System], faults: Sequence[Fault], plan: Plan) -> AsyncIterator[System]:
    """The system, not started yet, in a folder of its own; nothing of it is left after."""
    folder = Path(tempfile.mkdtemp(prefix="dure-chaos-"))
    network = Network(proxied=any(fault.proxied for fault in faults))
    system = kind(folder, network)
    disk = small_disk(system.home) if any(fault.small_disk for fault in faults) else contextlib.nullcontext()
    try:
        with disk:
            try:
                yield system
            finally:
                # Not handed to a thread: it must also happen when this task is cancelled.
                system.close()
                await network.close()
    finally:
        if plan.keep is not None:
            kept = plan.keep / f"{kind.name}-{'-'.join(fault.name for fault in faults)}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("home"))
        shutil.rmtree(folder, ignore_errors=True)
