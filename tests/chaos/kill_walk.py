"""A workflow whose services are killed at every point of their way, one point after the other.

For each number the services run a new workflow until the point of that number, where they die; then they are started
again, and go on until it has succeeded. The worker lives on. What must be found then is the same for every point.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from chaos.processes import Process
from dure.job import Reason, State
from dure.ledger import Ledger
from dure.settings import Settings
from tests.chaos import kill_services
from tests.chaos.kill_services import MARKS, RESULT

PATIENCE = 60.0


@dataclass
class Trail:
    """What the walk has found: where the services died by the number of the point, and what was wrong."""

    killed: dict[int, str] = field(default_factory=dict)
    lived: dict[int, int] = field(default_factory=dict)  # by the number that was never reached, how many points were
    wrong: list[str] = field(default_factory=list)
    repeated: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


@dataclass
class Place:
    """A broker, a ledger and a worker; the services come and go."""

    folder: Path
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        told = {"DURE_HOME": str(self.folder), "KILLED_FOLDER": str(self.folder), **self.environment}
        worker = [sys.executable, "-m", "dure", "worker", "-A", "tests.chaos.kill_tasks:app", "-P", "solo"]
        self._worker = Process("worker", [*worker, "-l", "warning", "-n", "worker@killed"], told, self.folder)
        self.given = {name.removeprefix("DURE_").lower(): v for name, v in told.items() if name.startswith("DURE_")}
        self.settings = Settings(_env_file=None, **self.given)  # type: ignore[arg-type,call-arg]

    def start(self) -> None:
        self._worker.start()

    def close(self) -> None:
        self._worker.kill()

    async def walk(self, numbers: Iterator[int], trail: Trail, misses: int) -> None:
        """Until the numbers are over, or `misses` of them were beyond the last point."""
        ledger = Ledger(self.settings.ledger)
        try:
            for number in numbers:
                began = time.monotonic()
                await self._strike(number, trail)
                trail.wrong += [
                    f"{number} ({trail.killed.get(number)}): {w}" for w in await self._check(ledger, number, trail)
                ]
                trail.seconds.append(time.monotonic() - began)
                if len(trail.lived) >= misses:
                    return
        finally:
            await ledger.close()

    async def _strike(self, number: int, trail: Trail) -> None:
        run = f"run-{number}"
        if await self._ended(self._services(run, number)) == 0:
            trail.lived[number] = int((self.folder / f"{run}.count").read_text())
            return
        trail.killed[number] = (self.folder / f"{run}.killed").read_text()
        code = await self._ended(self._services(run, None))
        if code != 0:
            trail.wrong.append(f"{number} ({trail.killed[number]}): did not come to its end: {code}")

    def _services(self, run: str, last: int | None) -> ForkServerProcess:
        is_early = int(run.rpartition("-")[2]) % 2 == 0
        return kill_services.start(self.given, self.folder, run, last, is_early)

    @staticmethod
    async def _ended(process: ForkServerProcess) -> int | None:
        """Its code; None for one that did not end in time.

        The code can be read once, and whoever starts a process reads that of each that has ended: so a thread waits
        only, and all reading is done here.
        """
        await asyncio.to_thread(wait, [process.sentinel], PATIENCE)
        code = process.exitcode
        if code is None:
            process.kill()
            await asyncio.to_thread(wait, [process.sentinel])
            process.join()
        process.close()
        return code

    async def _check(self, ledger: Ledger, number: int, trail: Trail) -> list[str]:
        run = f"run-{number}"
        view = await ledger.workflow_view((self.folder / f"{run}.id").read_text())
        if view is None:
            return ["there is no such workflow"]
        wrong = []
        if view.workflow.state is not State.SUCCESS:
            found = {str(each.job.node): f"{each.job.state} {each.job.reason}" for each in view.nodes}
            return [f"the workflow is {view.workflow.state}: {found}"]
        if (result := await ledger.workflow_result(view.workflow)) != RESULT:
            wrong.append(f"the result is {result}")
        expected = {str(each.job.node): (State.SUCCESS, None) for each in view.nodes}
        expected |= {"broken": (State.FAILURE, Reason.ERROR), "listed.error.0": (State.REVOKED, Reason.SKIPPED)}
        states = {str(each.job.node): (each.job.state, each.job.reason) for each in view.nodes}
        if len(states) != _NODES or states != expected:
            wrong.append(f"the nodes are {states}")
        wrong += self._check_marks(run, trail, was_killed=number in trail.killed)
        return wrong

    def _check_marks(self, run: str, trail: Trail, *, was_killed: bool) -> list[str]:
        """Each effect at least once, with the right argument, and none that should not be."""
        lines = map(json.loads, (self.folder / "marks").read_text().splitlines())
        found = [(node, json.dumps(value)) for its_run, node, value in lines if its_run == run]
        planned = Counter((node, json.dumps(value)) for node, values in MARKS.items() for value in values)
        planned["repaired", json.dumps("open")] = 2
        wrong = [f"not run: {each}" for each in planned - Counter(found)]
        wrong += [f"not planned: {each}" for each in set(found) - planned.keys()]
        again = Counter(found) - planned
        if again and not was_killed:
            wrong.append(f"run twice, though nothing was killed: {again}")
        trail.repeated.update(node for node, _ in again.elements())
        return wrong


_NODES = 18  # three of the chain, four of the chord, four of the map, two handlers, and five more


@asynccontextmanager
async def place(**environment: str) -> AsyncIterator[Place]:
    with tempfile.TemporaryDirectory(prefix="dure-killed-") as folder:
        found = Place(Path(folder), environment)
        found.start()
        try:
            yield found
        finally:
            await asyncio.to_thread(found.close)


async def walk(environments: list[Mapping[str, str]], numbers: Iterator[int], misses: int) -> Trail:
    """In several places side by side: most of the time is waiting for a lease of who was killed."""
    trail = Trail()

    async def go(environment: Mapping[str, str]) -> None:
        async with place(**environment) as found:
            await found.walk(numbers, trail, misses)

    async with asyncio.TaskGroup() as group:
        for environment in environments:
            group.create_task(go(environment))
    return trail
