"""Workflows of no-op tasks: Dure beside Celery's own canvas, on one RabbitMQ and one Redis, in one run.

Both run on the same stock Celery worker process, rounds alternate, and what is timed is the same: from the submission
to the end as the caller knows it. Dure's services run while Dure is timed only. Then Dure with its own worker.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from celery import chain, chord, group
from celery.result import GroupResult
from rich.console import Console
from rich.table import Table

from benchmarks.app import app, step
from benchmarks.server import gateway, process
from dure.client import Dure
from dure.settings import load
from tests.services import PostgreSQL, RabbitMQ, Redis

LENGTH = 100
WIDTH = 1_000
CHAINS, STEPS = 1_000, 5
NODES = 10_000
TIMEOUT = 300
_CONCURRENCY = ("--concurrency", "4", "--loglevel", "warning")

SHAPES: dict[str, Callable[[], list[Any]]] = {
    f"chain of {LENGTH}": lambda: [_chain(LENGTH)],
    f"group of {WIDTH:,}": lambda: [group(step.s() for _ in range(WIDTH))],
    f"chord of {WIDTH:,}": lambda: [chord([step.s() for _ in range(WIDTH)], step.s())],
    f"{CHAINS:,} chains of {STEPS}": lambda: [_chain(STEPS) for _ in range(CHAINS)],
}
CHAIN = next(iter(SHAPES))

Times = dict[str, list[float]]


def run(*, rounds: int = 3, chains: int = 5) -> dict[str, Any]:
    """Each round times the chain `chains` times and every other shape once."""
    with ExitStack() as stack:
        rabbitmq, postgres, redis = (stack.enter_context(kind(durable=True)) for kind in (RabbitMQ, PostgreSQL, Redis))
        times = {"Celery": _none(), "Dure, the same worker": _none(), "Dure, dure worker": _none()}
        broker, results = rabbitmq.vhost(), redis.database()
        environment = {
            "DURE_BROKER_URL": broker,
            "DURE_LEDGER_URL": postgres.database(),
            "DURE_RESULT_BACKEND": results,
        }
        with _stock_worker(broker, results):
            _celery(_none(), 1)
            for _ in range(rounds):
                _celery(times["Celery"], chains)
                with gateway(environment):
                    asyncio.run(_dure(environment, times["Dure, the same worker"], chains))
                rabbitmq.api("DELETE", f"queues/{broker.rpartition('/')[2]}/dure.events")
        environment = {"DURE_BROKER_URL": rabbitmq.vhost(), "DURE_LEDGER_URL": postgres.database()}
        worker = [sys.executable, "-m", "dure", "worker", "-A", "benchmarks.app:app", *_CONCURRENCY]
        with gateway(environment) as (url, _), process(worker, environment):
            for _ in range(rounds):
                asyncio.run(_dure(environment, times["Dure, dure worker"], chains))
            acceptance = asyncio.run(_accept(environment, url, rounds))
    return {"times": times, "acceptance": acceptance}


def _none() -> Times:
    return {shape: [] for shape in SHAPES}


def _chain(length: int) -> Any:
    return chain(step.s() for _ in range(length))


def _repeats(shape: str, chains: int) -> range:
    return range(chains if shape == CHAIN else 1)


@contextmanager
def _stock_worker(broker: str, results: str) -> Iterator[None]:
    app.conf.update(broker_url=broker, result_backend=results)
    where = ["-A", "benchmarks.app:app", "-b", broker, "--result-backend", results]
    with process([sys.executable, "-m", "celery", *where, "worker", "-E", *_CONCURRENCY], {}):
        step.delay().get(timeout=TIMEOUT)
        yield


def _celery(times: Times, chains: int) -> None:
    for shape, make in SHAPES.items():
        for _ in _repeats(shape, chains):
            canvases = make()
            began = time.perf_counter()
            started = [canvas.apply_async() for canvas in canvases]
            _wait(started)
            times[shape].append(time.perf_counter() - began)


def _wait(started: list[Any]) -> None:
    if len(started) > 1:
        GroupResult("all", started).join_native(timeout=TIMEOUT)
    elif isinstance(started[0], GroupResult):
        started[0].join_native(timeout=TIMEOUT)
    else:
        started[0].get(timeout=TIMEOUT)


async def _dure(environment: Mapping[str, str], times: Times, chains: int) -> None:
    async with _client(environment) as dure:
        while await dure.catalogue.find(step.name) is None:
            await asyncio.sleep(0.1)
        await _to_the_end(dure, _chain(STEPS))
        for shape, make in SHAPES.items():
            for _ in _repeats(shape, chains):
                canvases = make()
                began = time.perf_counter()
                await asyncio.gather(*(_to_the_end(dure, canvas) for canvas in canvases))
                times[shape].append(time.perf_counter() - began)


def _client(environment: Mapping[str, str]) -> Dure:
    return Dure(load(**{name.removeprefix("DURE_").lower(): value for name, value in environment.items()}))


async def _to_the_end(dure: Dure, canvas: Any) -> None:
    handle = await dure.submit(canvas)
    await handle.result(timeout=TIMEOUT)


async def _accept(environment: Mapping[str, str], url: str, repeats: int) -> dict[str, list[float]]:
    """How long it takes until a workflow of many nodes is committed; nobody consumes its queue."""
    one = {"task": step.name, "queue": "bench-nobody"}
    specs = {
        f"group of {NODES:,}": {"group": [one] * NODES},
        f"1, then {NODES - 1:,}": {"chain": [one, {"group": [one] * (NODES - 1)}]},
        f"{NODES // 10:,} chains of 10": {"group": [{"chain": [one] * 10}] * (NODES // 10)},
    }
    times: dict[str, list[float]] = {}
    async with _client(environment) as dure:

        async def by_client(spec: Any) -> str:
            return (await dure.submit_workflow(spec)).id

        async def over_http(spec: Any) -> str:
            return await asyncio.to_thread(_post, f"{url}/api/v1/workflows", json.dumps(spec).encode())

        ways: dict[str, Callable[[Any], Awaitable[str]]] = {"client": by_client, "HTTP": over_http}
        for shape, spec in specs.items():
            for way, accept in ways.items():
                took = times.setdefault(f"{shape}, {way}", [])
                for _ in range(repeats):
                    began = time.perf_counter()
                    workflow = await accept(spec)
                    took.append(time.perf_counter() - began)
                    await _published(dure, workflow)
                    await dure.cancel_workflow(workflow)
    return times


def _post(url: str, body: bytes) -> str:
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=TIMEOUT) as response:
        return str(json.load(response)["id"])


async def _published(dure: Dure, workflow: str) -> None:
    """Wait until nothing of it is on its way to the broker, so that it takes nothing from the next."""
    while (await dure.workflow(workflow, nodes=False)).counts.get("ACCEPTED"):
        await asyncio.sleep(0.1)


def show(console: Console, results: Mapping[str, Any]) -> None:
    times = results["times"]
    table = Table(title="Workflows of no-op tasks, submit to end, 4 at a time; seconds, p50", title_justify="left")
    table.add_column("shape")
    for system in times:
        table.add_column(system, justify="right")
        if system != "Celery":
            table.add_column("× Celery", justify="right")
    for shape in SHAPES:
        _row(table, shape, {system: statistics.median(times[system][shape]) for system in times}, "{:.2f}")
    edge = {system: statistics.median(times[system][CHAIN]) / (LENGTH - 1) * 1000 for system in times}
    _row(table, "one edge, ms", edge, "{:.1f}")
    console.print(table)
    accepted = Table(title=f"A workflow of {NODES:,} nodes is accepted", title_justify="left")
    accepted.add_column("shape")
    accepted.add_column("seconds, p50", justify="right")
    for shape, took in results["acceptance"].items():
        accepted.add_row(shape, f"{statistics.median(took):.2f}")
    console.print(accepted)


def _row(table: Table, name: str, figures: Mapping[str, float], form: str) -> None:
    cells = [name]
    for system, figure in figures.items():
        cells.append(form.format(figure))
        if system != "Celery":
            cells.append(f"{figure / figures['Celery']:.2f}")
    table.add_row(*cells)
