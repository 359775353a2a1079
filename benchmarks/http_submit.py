"""Submitting over HTTP: Dure beside plain FastAPI + Celery, on one RabbitMQ, in one run.

Every contender is one server process, loaded by wrk with 32 connections; rounds alternate, and the median of each
contender's rounds is told. Dure commits a row (PostgreSQL or SQLite, fsync on) before each 202; the others write none.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.load import Load, post
from benchmarks.server import cpu_seconds, gateway, uvicorn
from dure.ledger import Ledger
from dure.node import Node
from dure.task import Task
from dure.wire import Announcement
from tests.services import PostgreSQL, RabbitMQ

CONNECTIONS = 32
TASK = "bench.noop"
SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    url: str
    pid: int


def run(*, seconds: int = 5, rounds: int = 3) -> dict[str, Any]:
    with ExitStack() as stack:
        rabbitmq = stack.enter_context(RabbitMQ(durable=True))
        postgres = stack.enter_context(PostgreSQL(durable=True))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        contenders = _start(
            stack, rabbitmq.vhost(), {"PostgreSQL": postgres.database(), "SQLite": f"sqlite:///{folder}/l.db"}
        )
        for contender in contenders:
            post(contender.url, seconds=1, connections=CONNECTIONS)
        loads: dict[str, list[Load]] = {contender.name: [] for contender in contenders}
        cpu: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        for _ in range(rounds):
            for contender in contenders:
                before = cpu_seconds(contender.pid)
                load = post(contender.url, seconds=seconds, connections=CONNECTIONS)
                loads[contender.name].append(load)
                cpu[contender.name].append((cpu_seconds(contender.pid) - before) / load.requests * 1e6)
    return {name: _median(loads[name], cpu[name]) for name in loads}


def _start(stack: ExitStack, broker: str, ledgers: Mapping[str, str]) -> list[Contender]:
    plain = {"DURE_BROKER_URL": broker}
    url, pid = stack.enter_context(uvicorn("benchmarks.plain:app", plain))
    confirming, confirming_pid = stack.enter_context(uvicorn("benchmarks.plain:app", {**plain, "CONFIRM_PUBLISH": "1"}))
    contenders = [
        Contender("empty endpoint", f"{url}/empty", pid),
        Contender("plain def", f"{url}/def", pid),
        Contender("plain async def", f"{url}/async", pid),
        Contender("plain def, confirms", f"{confirming}/def", confirming_pid),
    ]
    for name, ledger in ledgers.items():
        asyncio.run(_announce(ledger))
        served, served_pid = stack.enter_context(gateway({"DURE_BROKER_URL": broker, "DURE_LEDGER_URL": ledger}))
        contenders.append(Contender(f"Dure, {name}", f"{served}/api/v1/tasks/{TASK}", served_pid))
    return contenders


async def _announce(url: str) -> None:
    """What a worker would: the task, with its schema, so that arguments are checked."""
    ledger = Ledger(url)
    await ledger.open()
    task = Task(name=TASK, arguments=SCHEMA, positional=("x", "y"), queue="dure-bench", announced_at=1.0)
    await ledger.record([], [Announcement(node=Node(hostname="bench@here"), tasks=(task,))])
    await ledger.close()


def _median(loads: list[Load], cpu: list[float]) -> dict[str, float]:
    told = {key: statistics.median(asdict(load)[key] for load in loads) for key in ("rate", "p50", "p99")}
    return told | {"cpu_us": statistics.median(cpu), "refused": sum(load.refused for load in loads)}


def show(console: Console, results: Mapping[str, Any]) -> None:
    baseline = results["plain def"]
    table = Table(title=f"HTTP submit, one server process, {CONNECTIONS} connections", title_justify="left")
    table.add_column("server")
    for heading in ("requests/s", "× plain def", "p50 ms", "p99 ms", "p99 × plain def", "CPU µs", "refused"):
        table.add_column(heading, justify="right")
    for name, told in results.items():
        table.add_row(
            name,
            f"{told['rate']:,.0f}",
            f"{told['rate'] / baseline['rate']:.2f}",
            f"{told['p50']:.1f}",
            f"{told['p99']:.1f}",
            f"{told['p99'] / baseline['p99']:.2f}",
            f"{told['cpu_us']:.0f}",
            f"{told['refused']:.0f}",
        )
    console.print(table)
