"""The tasks that workers have announced, held in memory and looked at again when the ledger's have changed."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import structlog

from dure.arguments import ArgumentCheck, argument_check
from dure.errors import UnknownTask
from dure.ledger import Ledger
from dure.task import Task

log = structlog.get_logger("dure")

_FRESH_SECONDS = 1.0
_MISSING_SECONDS = 0.1


class Catalogue:
    """What `find` answers is at most a second old; a name that is missing is looked for ten times a second."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._version: tuple[int, float] | None = None
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._tasks: dict[str, Task] = {}
        self._checks: dict[str, ArgumentCheck] = {}

    @property
    def version(self) -> tuple[int, float] | None:
        return self._version

    @property
    def tasks(self) -> Mapping[str, Task]:
        return MappingProxyType(self._tasks)

    async def refresh(self, within: float = _FRESH_SECONDS) -> None:
        """Look again, unless that was done in the last `within` seconds; who comes meanwhile shares the answer, or the
        LedgerUnavailable."""
        if time.monotonic() - self._looked_at < within:
            return
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        version = await self._ledger.catalogue_version()
        if version != self._version:
            self._tasks = {task.name: task for task in await self._ledger.tasks()}
            self._checks = {}
            self._version = version
        self._looked_at = time.monotonic()

    def _looked(self, looking: asyncio.Task[None]) -> None:
        self._looking = None
        if not looking.cancelled():
            looking.exception()  # seen, though nobody may wait for it any more

    def defines(self, queue: str) -> bool:
        """Whether it is a queue that an announced task is routed to, so that plain Celery code sends there too."""
        return any(task.queue == queue for task in self._tasks.values())

    async def find(self, name: str) -> Task | None:
        await self.refresh()
        if name not in self._tasks:
            await self.refresh(_MISSING_SECONDS)
        return self._tasks.get(name)

    async def having(self, names: Collection[str]) -> Mapping[str, Task]:
        """All tasks; where some of these are missing, looked at again."""
        await self.refresh()
        if not self._tasks.keys() >= set(names):
            await self.refresh(_MISSING_SECONDS)
        return self.tasks

    async def require(self, name: str) -> Task:
        """Raises UnknownTask with the names nearest to this one."""
        task = await self.find(name)
        if task is None:
            raise UnknownTask(name, _near(name, list(self._tasks)))
        return task

    def check(self, task: Task) -> ArgumentCheck:
        if task.name not in self._checks:
            self._checks[task.name] = argument_check(task)
        return self._checks[task.name]


def _near(name: str, known: Sequence[str]) -> list[str]:
    """Close spellings, and the same function in another module."""
    last = name.rpartition(".")[2]
    same = [other for other in known if other.rpartition(".")[2] == last]
    return list(dict.fromkeys([*difflib.get_close_matches(name, known, n=3), *same]))[:5]
