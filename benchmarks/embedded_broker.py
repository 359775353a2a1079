"""What the embedded broker does on this machine, beside kombu's filesystem transport, in one run.

    python benchmarks/embedded_broker.py [--backlogs 1000 5000 100000] [--seconds 5] [--json FILE]

Both transports are drained by the same kombu Consumer code: a prefetch of 100, JSON bodies of 200 bytes, each message
acknowledged in its callback. A drain is timed for at most `--seconds`; the filesystem transport lists its whole
folder for every message, so its deeper backlogs are time-boxed and its largest is skipped unless asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kombu import Connection, Exchange, Queue
from kombu.transport.filesystem import Transport as FilesystemTransport
from rich.console import Console
from rich.table import Table

import dure.broker  # noqa: F401
from dure.broker.store import Message, Store

BODY = {"args": ["x" * 180], "n": 1}
QUEUE = Queue("tasks", Exchange("tasks", "direct"), routing_key="tasks")
SOURCE = str(Path(__file__).resolve().parents[1] / "src")
FILESYSTEM_MOST = 5_000

WAITER = """
import sys, time, select
import dure.broker
from kombu import Connection, Queue
def received(body, message):
    print(time.perf_counter_ns() - body, flush=True)
    message.ack()
with Connection(sys.argv[1]) as connection:
    with connection.Consumer([Queue("wake")], callbacks=[received]):
        print("ready", flush=True)
        while True:
            try:
                connection.drain_events(timeout=5)
            except TimeoutError:
                pass
"""
WORKER = """
import os
import dure.broker
from celery import Celery
app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=int(os.environ["BENCH_PREFETCH"]))
@app.task(ignore_result=True)
def nothing():
    pass
"""


def dure_connection(folder: Path) -> Connection:
    return Connection(f"dure://{folder}/broker.db")


def filesystem_connection(folder: Path) -> Connection:
    # It remembers bindings for the whole process, also those of a folder that is gone.
    FilesystemTransport.global_state.clear()
    places = {name: str(folder / name) for name in ("queue", "processed", "control")}
    for place in places.values():
        Path(place).mkdir(exist_ok=True)
    options = {
        "data_folder_in": places["queue"],
        "data_folder_out": places["queue"],
        "processed_folder": places["processed"],
        "control_folder": places["control"],
        "polling_interval": None,
    }
    return Connection("filesystem://", transport_options=options)


def fill(connection: Connection, count: int) -> float:
    producer = connection.Producer()
    producer.publish(BODY, exchange=QUEUE.exchange, routing_key="tasks", declare=[QUEUE])
    began = time.perf_counter()
    for _ in range(count - 1):
        producer.publish(BODY, exchange=QUEUE.exchange, routing_key="tasks")
    return (count - 1) / (time.perf_counter() - began)


def drain(connection: Connection, count: int, seconds: float) -> tuple[float, int]:
    """Messages a second, and how many were drained before the time was up."""
    taken = 0

    def received(body: object, message: Any) -> None:
        nonlocal taken
        message.ack()
        taken += 1

    with connection.Consumer([QUEUE], callbacks=[received], prefetch_count=100):
        began = time.perf_counter()
        while taken < count and time.perf_counter() - began < seconds:
            connection.drain_events(timeout=5)
        took = time.perf_counter() - began
    return taken / took, taken


def measure_drains(
    make: Callable[[Path], Connection], backlogs: list[int], seconds: float, most: int | None
) -> list[Any]:
    rows = []
    for backlog in backlogs:
        if most is not None and backlog > most:
            rows.append({"backlog": backlog, "skipped": True})
            continue
        with tempfile.TemporaryDirectory() as folder:
            with make(Path(folder)) as connection:
                published = fill(connection, backlog)
            with make(Path(folder)) as connection:
                rate, taken = drain(connection, backlog, seconds)
        rows.append({"backlog": backlog, "drained_per_s": rate, "drained": taken, "published_per_s": published})
    return rows


def measure_depth(backlog: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "broker.db")
        store.declare_queue("q")
        message = Message("", "q", "x" * 200)
        began = time.perf_counter()
        store.publish([message] * backlog)
        batched = backlog / (time.perf_counter() - began)
        began = time.perf_counter()
        store.depth("q")
        depth = time.perf_counter() - began
        store.close()
    return {"backlog": backlog, "depth_ms": depth * 1000, "batch_published_per_s": batched}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_cpu(pid: int, seconds: float) -> float:
    began, before = time.perf_counter(), cpu_seconds(pid)
    time.sleep(seconds)
    return 100 * (cpu_seconds(pid) - before) / (time.perf_counter() - began)


def measure_wakes(count: int, idle_seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, dure_connection(Path(folder)) as connection:
        queue = Queue("wake")
        queue(connection.default_channel).declare()
        waiter = subprocess.Popen(
            [sys.executable, "-c", WAITER, connection.as_uri()], stdout=subprocess.PIPE, text=True
        )
        assert waiter.stdout is not None
        waiter.stdout.readline()
        idle = idle_cpu(waiter.pid, idle_seconds)
        producer = connection.Producer()
        latencies = []
        for _ in range(count):
            time.sleep(0.01)  # the waiter is asleep again
            producer.publish(time.perf_counter_ns(), routing_key="wake")
            latencies.append(int(waiter.stdout.readline()) / 1e6)
        waiter.send_signal(signal.SIGKILL)
        waiter.wait()
    cuts = statistics.quantiles(latencies, n=100)
    return {"p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(latencies), "idle_cpu_percent": idle}


def measure_worker(pool: str, prefetch: int, tasks: int, idle_seconds: float) -> dict[str, Any]:
    """No-op tasks run a second by a real Celery worker, counted by what is left unacknowledged in the file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bench.py").write_text(WORKER)
        path = Path(folder) / "broker.db"
        os.environ.update(PYTHONPATH=SOURCE, BENCH_BROKER=f"dure://{path}", BENCH_PREFETCH=str(prefetch))
        submit = f"import bench, time; b = time.perf_counter()\nfor _ in range({tasks}): bench.nothing.delay()\n"
        submit += f"print({tasks} / (time.perf_counter() - b))"
        submitted = subprocess.run(
            [sys.executable, "-c", submit], cwd=folder, capture_output=True, text=True, check=True
        ).stdout
        command = ["-m", "celery", "-A", "bench", "worker", "-P", pool, "-c", "4", "-l", "ERROR"]
        worker = subprocess.Popen(
            [sys.executable, *command, "--without-gossip", "--without-mingle"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        reader = sqlite3.connect(path)

        def left() -> int:
            return int(reader.execute("SELECT count(*) FROM messages").fetchone()[0])

        while left() > tasks * 0.95:
            time.sleep(0.005)
        first, began = left(), time.perf_counter()
        while left():
            time.sleep(0.005)
        rate = first / (time.perf_counter() - began)
        time.sleep(1)
        idle = idle_cpu(worker.pid, idle_seconds)
        worker.terminate()
        worker.wait()
        reader.close()
    return {
        "pool": pool,
        "prefetch_multiplier": prefetch,
        "tasks_per_s": rate,
        "submitted_per_s": float(submitted),
        "idle_cpu_percent": idle,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "load_1m": os.getloadavg()[0],
        },
        "drain": {
            "dure": measure_drains(dure_connection, options.backlogs, options.seconds, None),
            "filesystem": measure_drains(
                filesystem_connection, options.backlogs, options.seconds, options.filesystem_most
            ),
        },
        "store": measure_depth(max(options.backlogs)),
        "wake": measure_wakes(options.wakes, options.idle),
        "celery": [
            measure_worker(pool, prefetch, options.tasks, options.idle)
            for pool in ("solo", "threads", "prefork")
            for prefetch in (1, 4)
        ],
    }


def run() -> dict[str, Any]:
    return measure(_parser().parse_args([]))


def show(console: Console, figures: dict[str, Any]) -> None:
    drains = Table("transport", "backlog", "drained/s", "drained", "published/s", title="kombu Consumer, prefetch 100")
    for transport, rows in figures["drain"].items():
        for row in rows:
            if row.get("skipped"):
                drains.add_row(transport, f"{row['backlog']:,}", "skipped", "", "")
            else:
                drains.add_row(
                    transport,
                    f"{row['backlog']:,}",
                    f"{row['drained_per_s']:,.0f}",
                    f"{row['drained']:,}" + ("" if row["drained"] >= row["backlog"] else " (time was up)"),
                    f"{row['published_per_s']:,.0f}",
                )
    workers = Table("pool", "prefetch", "tasks/s", "submitted/s", "idle CPU %", title="Celery worker, no-op, acks late")
    for row in figures["celery"]:
        workers.add_row(
            row["pool"],
            str(row["prefetch_multiplier"]),
            f"{row['tasks_per_s']:,.0f}",
            f"{row['submitted_per_s']:,.0f}",
            f"{row['idle_cpu_percent']:.2f}",
        )
    wake, store = figures["wake"], figures["store"]
    console.print(figures["machine"], drains, workers)
    console.print(f"wake of an idle process: p50 {wake['p50_ms']:.2f} ms, p99 {wake['p99_ms']:.2f} ms")
    console.print(f"idle kombu consumer: {wake['idle_cpu_percent']:.2f} % of a core")
    console.print(f"depth at {store['backlog']:,}: {store['depth_ms']:.2f} ms")
    console.print(f"published in one transaction: {store['batch_published_per_s']:,.0f}/s")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlogs", type=int, nargs="+", default=[1_000, 5_000, 100_000])
    parser.add_argument("--filesystem-most", type=int, default=FILESYSTEM_MOST, help="its largest backlog to try")
    parser.add_argument("--seconds", type=float, default=5.0, help="the longest that one drain is timed")
    parser.add_argument("--wakes", type=int, default=300)
    parser.add_argument("--idle", type=float, default=5.0, help="seconds of idling to measure")
    parser.add_argument("--tasks", type=int, default=5_000)
    parser.add_argument("--json", type=Path)
    return parser


def main() -> None:
    options = _parser().parse_args()
    figures = measure(options)
    show(Console(), figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
