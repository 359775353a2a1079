"""Waiting for workflows to end, by asking the ledger: one question in a round for everybody who waits in this process.

No worker tells the end of a workflow; it is reckoned where the end of its last node is recorded, and told from there.
Then the ledger is asked at once, and else ever less often, for what was told may be lost. Of those that plain Celery
code sent nobody reckons the end: whenever something of them was told, the ledger is asked again soon, and not all is
told under one key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog
from sqlalchemy.exc import SQLAlchemyError

from dure.client.watching import Watching
from dure.errors import LedgerUnavailable
from dure.ledger import Ledger
from dure.workflow import Workflow

log = structlog.get_logger("dure")

_FIRST_SECONDS = 0.02
_MOST_SECONDS = 1.0
_MOST_SECONDS_OF_CELERYS = 0.25


class FlowWaiting:
    """Everybody who waits for a workflow in this process."""

    def __init__(self, ledger: Ledger, watching: Watching) -> None:
        self._ledger = ledger
        self._watching = watching
        self._waiters: dict[str, set[asyncio.Future[Workflow]]] = {}
        self._of_celery: set[str] = set()
        self._ask = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    async def wait(self, workflow: Workflow, timeout: float | None) -> Workflow | None:
        """The workflow once it has ended, None when `timeout` seconds have passed; `workflow` is what is known."""
        if workflow.state.final:
            return workflow
        future: asyncio.Future[Workflow] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(workflow.id, set()).add(future)
        if workflow.origin != "dure":
            self._of_celery.add(workflow.id)
        self._ask.set()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_ledger(), name="dure-workflows")
        try:
            is_recorded = workflow.origin == "dure"
            with self._watching.woken(workflow.id, self._ask.set, by_its_end=is_recorded):
                async with asyncio.timeout(timeout):
                    return await future
        except TimeoutError:
            return None
        finally:
            self._forget(workflow.id, future)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _forget(self, workflow_id: str, future: asyncio.Future[Workflow]) -> None:
        waiters = self._waiters.get(workflow_id, set())
        waiters.discard(future)
        if not waiters:
            self._waiters.pop(workflow_id, None)
            self._of_celery.discard(workflow_id)

    async def _ask_ledger(self) -> None:
        pause = _FIRST_SECONDS
        while self._waiters:
            self._ask.clear()
            await self._look(list(self._waiters))
            await asyncio.sleep(_FIRST_SECONDS)
            pause = min(pause * 1.5, _MOST_SECONDS_OF_CELERYS if self._of_celery else _MOST_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause - _FIRST_SECONDS):
                    await self._ask.wait()
                pause = _FIRST_SECONDS

    async def _look(self, ids: Sequence[str]) -> None:
        try:
            found = await self._ledger.some_workflows(ids)
            for workflow_id in ids:  # of those that plain Celery code sent there is no record
                if workflow_id not in found and (view := await self._ledger.workflow_view(workflow_id, nodes=False)):
                    found[workflow_id] = view.workflow
        except (LedgerUnavailable, SQLAlchemyError) as exc:
            log.warning("the ledger could not be asked; those who wait go on waiting", error=str(exc))
            return
        for workflow in found.values():
            if workflow.state.final:
                for future in self._waiters.get(workflow.id, ()):
                    if not future.done():
                        future.set_result(workflow)
