"""A process that runs Dure's services and one workflow, and can kill itself at the n-th point: before and after each
transaction of the ledger, before its commit, and before and after each publish to the broker.

Whoever is started after it goes on with the same workflow: submits it under the same key, signals it, repairs and
retries it, until it has succeeded.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from dure.client import Dure
from dure.client.embedded import EmbeddedLink
from dure.client.rabbitmq import RabbitLink
from dure.errors import JobEnded
from dure.gateway.runtime import running
from dure.job import State
from dure.ledger import Ledger
from dure.settings import Settings

GATE = "gate"
_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 0.03


def spec(run: str) -> dict[str, Any]:
    """A chain, a chord, a map, a handler that runs and one that does not, a wait, and a node that needs a repair."""

    def task(name: str, node: str, *args: Any, **form: Any) -> dict[str, Any]:
        return {"task": f"killed.{name}", "args": list(args), "kwargs": {"run": run, "node": node}} | form

    def result(node: str) -> dict[str, str]:
        return {"$result": node}

    header = [task("step", f"header {number}", number, immutable=True) for number in (10, 20, 30)]
    never = task("step", "never", 0, immutable=True)
    handler = task("step", "handler", 0, immutable=True)
    nodes = {
        "steps": {"chain": [task("step", "first", 0), task("step", "second"), task("step", "third")]},
        "sum": {"chord": {"header": header, "body": task("step", "sum")}, "needs": ["steps"]},
        "listed": task("listed", "listed", result("steps"), link_error=[never]),
        "each": {"map": {"over": result("listed"), "do": task("step", "each")}},
        "broken": task("fail", "broken", on_failure="continue", link_error=[handler]),
        GATE: {"wait": {}, "needs": ["steps"]},
        "repaired": task("repaired", "repaired", result(GATE)),
        "last": task("collect", "last", *map(result, ("sum", "each", "repaired", "broken"))),
    }
    return {"nodes": nodes, "result": result("last")}


RESULT = [64, [4, 14, 24], "open", None]

MARKS: dict[str, list[Any]] = {
    "first": [0],
    "second": [1],
    "third": [2],
    "header 10": [10],
    "header 20": [20],
    "header 30": [30],
    "sum": [[11, 21, 31]],
    "listed": [3],
    "each": [3, 13, 23],
    "broken": [None],
    "handler": [0],
    "repaired": ["open"],
    "last": [RESULT],
}


class Points:
    """Counts the points that the process comes to; at the one of number `last` it kills itself."""

    def __init__(self, last: int | None, folder: Path, run: str) -> None:
        self._last = last
        self._folder = folder
        self._run = run
        self._count = 0

    def reach(self, what: str) -> None:
        self._count += 1
        if self._count == self._last:
            (self._folder / f"{self._run}.killed").write_text(what)
            os.kill(os.getpid(), signal.SIGKILL)

    def write_down(self) -> None:
        (self._folder / f"{self._run}.count").write_text(str(self._count))


def _strike_ledger(points: Points) -> None:
    writing = Ledger._writing

    @asynccontextmanager
    async def struck(self: Ledger) -> AsyncIterator[Any]:
        name = _caller()
        points.reach(f"before {name}")
        async with writing(self) as connection:
            yield connection
            points.reach(f"before the commit of {name}")
        points.reach(f"after {name}")

    Ledger._writing = struck  # type: ignore[method-assign]


def _caller() -> str:
    """The method of the ledger whose transaction it is."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_name in ("__aenter__", "struck"):
        frame = frame.f_back
    return frame.f_code.co_name


def _strike_link(points: Points, kind: Any) -> None:
    publish = kind.publish

    async def struck(self: Any, messages: Any) -> Any:
        points.reach("before a publish")
        outcome = await publish(self, messages)
        points.reach("after a publish")
        return outcome

    kind.publish = struck


async def _serve(settings: Settings, folder: Path, run: str, is_early: bool) -> None:
    async with running(settings) as (dure, _):
        await _bring_to_success(dure, folder, run, is_early)


async def _bring_to_success(dure: Dure, folder: Path, run: str, is_early: bool) -> None:
    handle = await dure.submit_workflow(spec(run), idempotency_key=run, force=True)
    (folder / f"{run}.id").write_text(handle.id)
    while True:
        gate = await dure.ledger.node(handle.id, GATE)
        third = await dure.ledger.node(handle.id, "steps.2")
        if gate is not None and not gate.state.final and (is_early or (third is not None and third.state.final)):
            with suppress(JobEnded):  # it has its signal already
                await dure.signal(handle.id, GATE, "open")
        workflow = await dure.ledger.workflow(handle.id)
        assert workflow is not None
        if workflow.state is State.SUCCESS:
            return
        if workflow.state.final:
            (folder / f"{run}.repaired").touch()
            await dure.retry_workflow(handle.id)
        await asyncio.sleep(_LOOK_SECONDS)


def _main(given: Mapping[str, Any], folder: Path, run: str, last: int | None, is_early: bool) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    log = os.open(folder / "services.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name in [name for name in os.environ if name.startswith(("DURE_", "CELERY_"))]:
        del os.environ[name]
    points = Points(last, folder, run)
    _strike_ledger(points)
    _strike_link(points, EmbeddedLink)
    _strike_link(points, RabbitLink)
    asyncio.run(_serve(Settings(_env_file=None, **given), folder, run, is_early))  # type: ignore[call-arg]
    points.write_down()


@cache
def _processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "sqlalchemy.dialects.postgresql.psycopg", "aiosqlite"])
    return context


def start(given: Mapping[str, Any], folder: Path, run: str, last: int | None, is_early: bool) -> ForkServerProcess:
    """`given` are the settings, `is_early` says whether the signal comes before its node waits for it."""
    process = _processes().Process(target=_main, args=(given, folder, run, last, is_early), daemon=True)
    process.start()
    return process
