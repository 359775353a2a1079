"""Live feeds over SSE, on RabbitMQ and PostgreSQL: how late the first event and each chunk of output are, what an idle
watcher costs, and what a job that nobody watches costs while others are watched.

Everything runs on this machine: the clocks of task and reader are one.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.server import cpu_seconds, gateway, process
from benchmarks.sse import Stream
from dure.client import Dure
from dure.settings import load
from tests.services import PostgreSQL, RabbitMQ

FIRST = 200
STREAMS, RATE, SECONDS = 200, 50.0, 10.0
IDLE = 2_000
UNWATCHED = 2_000
_TIMEOUT = 120.0
_BEFORE = 5.0  # seconds until the first chunk, when all readers are there


def run() -> dict[str, Any]:
    with ExitStack() as stack:
        rabbitmq, postgres = (stack.enter_context(kind(durable=True)) for kind in (RabbitMQ, PostgreSQL))
        environment = {"DURE_BROKER_URL": rabbitmq.vhost(), "DURE_LEDGER_URL": postgres.database()}
        worker = [sys.executable, "-m", "dure", "worker", "-A", "benchmarks.app:app", "--loglevel", "warning"]
        worker += ["--concurrency", str(STREAMS)]
        url, pid = stack.enter_context(gateway(environment))
        stack.enter_context(process(worker, environment))
        return asyncio.run(_measure(environment, url, pid))


async def _measure(environment: Mapping[str, str], url: str, pid: int) -> dict[str, Any]:
    settings = {name.removeprefix("DURE_").lower(): value for name, value in environment.items()}
    async with Dure(load(**settings)) as dure:
        while await dure.catalogue.find("bench.stream") is None:
            await asyncio.sleep(0.1)
        first = [await _first(dure, url) for _ in range(FIRST)]
        alone = await _unwatched(dure, pid)
        chunks = await _chunks(dure, url)
        memory, beside = await _idle(dure, url, pid)
    return {
        "first": _percentiles(first),
        "chunks": chunks,
        "idle": {"watchers": IDLE, "bytes each": memory},
        "unwatched job, gateway's CPU ms": {"no watchers": alone, f"{IDLE:,} watchers of others": beside},
    }


async def _first(dure: Dure, url: str) -> float:
    """From the submission of a job that emits at once and goes on for a while to the first event that its worker
    caused, by a reader that comes after the submission."""
    began = time.perf_counter()
    handle = await dure.submit("bench.stream", RATE, 0.2)
    stream = await Stream.open(f"{url}/api/v1/jobs/{handle.id}/events")
    async for kind, data in stream.events():
        if kind == b"output" or (kind == b"state" and json.loads(data)["state"] == "STARTED"):
            break
    took = time.perf_counter() - began
    async for kind, _ in stream.events():
        if kind == b"result":
            break
    stream.close()
    return took


async def _chunks(dure: Dure, url: str) -> dict[str, Any]:
    handles = [await dure.submit("bench.stream", RATE, SECONDS, _BEFORE) for _ in range(STREAMS)]
    urls = "\n".join(f"{url}/api/v1/jobs/{handle.id}/events" for handle in handles)
    reading = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.readers", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await reading.communicate(urls.encode())
    if reading.returncode:
        raise RuntimeError("the readers failed")
    read = json.loads(told)
    return _percentiles(read["late"]) | {"chunks": len(read["late"]), "missing": read["missing"]}


async def _idle(dure: Dure, url: str, pid: int) -> tuple[float, float]:
    """Bytes of the gateway's memory for each watcher, and the cost of an unwatched job beside them."""
    handle = await dure.submit("bench.nap", _TIMEOUT, queue="bench-nobody", force=True)
    before = _memory(pid)
    streams = [await Stream.open(f"{url}/api/v1/jobs/{handle.id}/events") for _ in range(IDLE)]
    await asyncio.sleep(1)
    each = (_memory(pid) - before) / IDLE
    cost = await _unwatched(dure, pid)
    for stream in streams:
        stream.close()
    return each, cost


async def _unwatched(dure: Dure, pid: int) -> float:
    """The gateway's CPU time for a job that nobody watches, in milliseconds."""
    before = cpu_seconds(pid)
    handles = [await dure.submit("bench.step") for _ in range(UNWATCHED)]
    ids = [handle.id for handle in handles]
    deadline = time.monotonic() + _TIMEOUT
    while ids:
        some = await dure.ledger.some_jobs(ids)
        ids = [job_id for job_id in ids if not some[job_id].state.final]
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(ids)} jobs have not ended")
        await asyncio.sleep(0.2)
    return (cpu_seconds(pid) - before) / UNWATCHED * 1000


def _memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50": cuts[49], "p99": cuts[98], "max": max(seconds)}


def show(console: Console, results: Mapping[str, Any]) -> None:
    table = Table(title="Live feeds over SSE, milliseconds", title_justify="left")
    for column in ("", "p50", "p99", "max"):
        table.add_column(column, justify="right" if column else "left")
    chunks = results["chunks"]
    named = {
        "submit to first event of the worker": results["first"],
        f"emit to reader, {STREAMS} × {RATE:g}/s ({chunks['chunks']:,} chunks, {chunks['missing']} missing)": chunks,
    }
    for name, figures in named.items():
        table.add_row(name, *(f"{figures[part] * 1000:.1f}" for part in ("p50", "p99", "max")))
    console.print(table)
    costs = Table(title="Watching", title_justify="left")
    costs.add_column("")
    costs.add_column("", justify="right")
    costs.add_row(f"memory of one of {IDLE:,} idle watchers, KiB", f"{results['idle']['bytes each'] / 1024:.1f}")
    for name, cost in results["unwatched job, gateway's CPU ms"].items():
        costs.add_row(f"an unwatched job, {name}, ms of the gateway's CPU", f"{cost:.2f}")
    console.print(costs)
