"""From submit to result, one job after another on an idle system: what a waiting caller feels."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from celery import Celery
from rich.console import Console
from rich.table import Table

from benchmarks.server import gateway, process
from dure.client import Dure
from dure.settings import load
from tests.services import PostgreSQL, RabbitMQ, Redis

JOBS = 300
_WARM_UP = 20


def run(*, jobs: int = JOBS) -> dict[str, Any]:
    with ExitStack() as stack:
        rabbitmq, postgres, redis = (stack.enter_context(kind(durable=True)) for kind in (RabbitMQ, PostgreSQL, Redis))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        servers = {"DURE_BROKER_URL": rabbitmq.vhost(), "DURE_LEDGER_URL": postgres.database()}
        return {
            "Dure, embedded": _dure({"DURE_HOME": folder}, jobs),
            "Dure, RabbitMQ + PostgreSQL": _dure(servers, jobs),
            "Celery, RabbitMQ + Redis": _celery(rabbitmq.vhost(), redis.database(), jobs),
        }


def _dure(environment: Mapping[str, str], jobs: int) -> dict[str, float]:
    worker = [sys.executable, "-m", "dure", "worker", "-A", "benchmarks.app:app", "--loglevel", "warning"]
    with gateway(environment), process(worker, environment):
        settings = {name.removeprefix("DURE_").lower(): value for name, value in environment.items()}
        return asyncio.run(_time_dure(settings, jobs))


async def _time_dure(settings: Mapping[str, str], jobs: int) -> dict[str, float]:
    async with Dure(load(**settings)) as dure:
        while await dure.catalogue.find("bench.add") is None:
            await asyncio.sleep(0.1)
        took = []
        for n in range(jobs + _WARM_UP):
            began = time.perf_counter()
            handle = await dure.submit("bench.add", n, 1)
            await handle.result(timeout=30)
            took.append(time.perf_counter() - began)
        return _percentiles(took[_WARM_UP:])


def _celery(broker: str, backend: str, jobs: int) -> dict[str, float]:
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.app:app", "-b", broker, "--result-backend", backend]
    app = Celery(broker=broker, backend=backend)
    with process([*command, "worker", "--pool", "threads", "--loglevel", "warning"], {}):
        took = []
        for n in range(jobs + _WARM_UP):
            began = time.perf_counter()
            app.send_task("bench.add", (n, 1)).get(timeout=30)
            took.append(time.perf_counter() - began)
    return _percentiles(took[_WARM_UP:])


def _percentiles(seconds: Iterable[float]) -> dict[str, float]:
    cuts = statistics.quantiles([second * 1000 for second in seconds], n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


def show(console: Console, results: Mapping[str, Any]) -> None:
    table = Table(title="Submit to result, one at a time, threads pool", title_justify="left")
    table.add_column("stack")
    table.add_column("p50 ms", justify="right")
    table.add_column("p99 ms", justify="right")
    for name, told in results.items():
        table.add_row(name, f"{told['p50']:.1f}", f"{told['p99']:.1f}")
    console.print(table)
