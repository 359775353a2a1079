"""Workers beside one another on one RabbitMQ: tasks a second, processor time and memory for them, start-up time.

    python -m benchmarks.worker [--tasks 5000] [--rounds 1] [--only plain sleep] [--json FILE]

The queue is filled first, then the worker is started, and its own tasks mark when the first, a tenth, and the last of
them ran. Between the last two marks tasks and processor time are counted. Within a scenario the candidates take turns,
round by round, and the median counts. Broker, results and load generator share the machine with the worker, so
processor time for each task and ratios mean more than tasks a second.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.workers import watching
from benchmarks.workers.candidates import CANDIDATES, Candidate
from tests.services import RabbitMQ, Redis

CHECKOUT = Path(__file__).parents[1]
TASKS, SLEEPERS, MIXED = 5_000, 10_000, 1_000
LONGEST = 90.0  # seconds for one worker
NAP, SHORT_NAP, BURN = 1.0, 0.02, 0.02


@dataclass(frozen=True)
class Scenario:
    title: str
    load: str = "noop"
    results: bool = False
    events: bool = False
    queue_type: str = "classic"
    processes: int = 1


SCENARIOS = {
    "plain": Scenario("no-op tasks"),
    "results": Scenario("no-op tasks, results in Redis", results=True),
    "events": Scenario("no-op tasks, full events", events=True),
    "both": Scenario("no-op tasks, results in Redis, full events", results=True, events=True),
    "quorum": Scenario("no-op tasks, results in Redis, quorum queue", results=True, queue_type="quorum"),
    "two": Scenario("no-op tasks, results in Redis, two processes", results=True, processes=2),
    "sleep": Scenario("tasks that sleep 1 s (Celery threads and Dramatiq: 1,000 at once)", load="nap"),
    "mix": Scenario("each tenth task computes for 20 ms, the others wait for 20 ms", load="mix", results=True),
}


@dataclass(frozen=True)
class Sizes:
    tasks: int = TASKS
    sleepers: int = SLEEPERS
    mixed: int = MIXED


def run(sizes: Sizes = Sizes(), rounds: int = 1, only: Sequence[str] = (), workers: Sequence[str] = ()) -> Any:
    figures: dict[str, dict[str, list[dict[str, Any]]]] = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no worker is left behind
    with RabbitMQ(durable=True) as rabbitmq, Redis(durable=True) as redis:
        for name in only or SCENARIOS:
            found = figures.setdefault(name, {})
            for _ in range(rounds):
                for candidate in _candidates(SCENARIOS[name], workers):
                    measured = _measure(candidate, SCENARIOS[name], sizes, rabbitmq, redis)
                    found.setdefault(candidate.name, []).append(measured)
    return {name: {candidate: _median(rows) for candidate, rows in found.items()} for name, found in figures.items()}


def _candidates(scenario: Scenario, workers: Sequence[str]) -> Iterator[Candidate]:
    for candidate in CANDIDATES:
        if getattr(candidate, scenario.load) is None or (scenario.events and candidate.framework != "celery"):
            continue
        if not workers or candidate.name in workers:
            yield candidate


def _measure(
    candidate: Candidate, scenario: Scenario, sizes: Sizes, rabbitmq: RabbitMQ, redis: Redis
) -> dict[str, Any]:
    broker = rabbitmq.vhost()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "marks"
        environment = {
            "BENCH_BROKER": broker,
            "BENCH_EVENTS": "yes" if scenario.events else "no",
            "BENCH_MARKS": str(path),
            "BENCH_QOS": str(sizes.sleepers if scenario.load == "nap" else 100),
            "BENCH_QUEUE_TYPE": scenario.queue_type,
            "DURE_BROKER_URL": broker,
            "DURE_HOME": folder,
            "PYTHONPATH": f"{CHECKOUT / 'src'}:{CHECKOUT}",
            **candidate.environment,
        }
        if scenario.results:
            environment["BENCH_RESULTS"] = redis.database()
        plan, many = _plan(candidate, scenario, sizes)
        fill = [sys.executable, "-m", "benchmarks.workers.fill", candidate.framework, json.dumps(plan)]
        subprocess.run(fill, env=os.environ | environment, cwd=CHECKOUT, check=True)
        commands = candidate.arguments(scenario.load, scenario.processes)
        with _started(commands, environment, Path(folder) / "log") as worker:
            found = _watch(worker, path, many, is_noop=scenario.load == "noop")
        if "failed" in found:
            log = (Path(folder) / "log").read_text(errors="replace").strip()
            print(log[-2000:], file=sys.stderr)
    rabbitmq.forget(broker)
    told = " ".join(f"{figure}={value:,.4g}" for figure, value in found.items() if figure != "failed")
    print(f"{scenario.title}: {candidate.name} {told or found['failed']}", file=sys.stderr, flush=True)
    return found


def _plan(candidate: Candidate, scenario: Scenario, sizes: Sizes) -> tuple[list[list[Any]], int]:
    """What to send, and how many of them are counted."""
    prefix = candidate.prefix
    if scenario.load == "nap":
        return [[f"{prefix}nap", [NAP], sizes.sleepers]], sizes.sleepers
    if scenario.load == "mix":
        ten = [["burn", [BURN], 1], [f"{prefix}nap", [SHORT_NAP], 9]]
        return ten * (sizes.mixed // 10), sizes.mixed // 10 * 10
    mark = f"{prefix}mark"
    tasks = f"{prefix}noop"
    return [
        [mark, ["first"], 1],
        [tasks, [], sizes.tasks // 10],
        [mark, ["warm"], 1],
        [tasks, [], sizes.tasks],
        [mark, ["last"], 1],
    ], sizes.tasks


class _Worker:
    def __init__(self, processes: list[subprocess.Popen[bytes]], began: float) -> None:
        self.processes = processes
        self.began = began

    def cpu(self) -> float:
        return sum(watching.cpu_seconds(process.pid) for process in self.processes)

    def memory(self) -> float:
        return sum(watching.memory(process.pid) for process in self.processes)

    @property
    def has_ended(self) -> bool:
        return any(process.poll() is not None for process in self.processes)


@contextmanager
def _started(commands: Sequence[Sequence[str]], environment: Mapping[str, str], log: Path) -> Iterator[_Worker]:
    """Each in a session of its own, which is gone afterwards."""
    programs = Path(sys.executable).parent
    began = time.time()
    with ExitStack() as stack, log.open("wb") as output:
        worker = _Worker([], began)
        for program, *arguments in commands:
            started = subprocess.Popen(
                [str(programs / program), *arguments],
                env=os.environ | environment,
                cwd=CHECKOUT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            stack.callback(_end, started)
            worker.processes.append(started)
        yield worker


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    for folder in watching.processes(process.pid):
        with suppress(ProcessLookupError):
            os.kill(int(folder.name), signal.SIGKILL)
    process.wait()


def _watch(worker: _Worker, path: Path, many: int, *, is_noop: bool) -> dict[str, Any]:
    """Processor time is read when a mark is seen, which is some milliseconds late."""
    cpu: dict[str, float] = {}
    deadline = worker.began + LONGEST
    pause = 0.005 if is_noop else 0.1
    while True:
        marks = watching.marks(path)
        names = {name for name, _ in marks}
        for name in names - cpu.keys():
            cpu[name] = worker.cpu()
        if "last" in names if is_noop else sum(name == "done" for name, _ in marks) == many:
            break
        if worker.has_ended or time.time() > deadline:
            return {"failed": "it ended" if worker.has_ended else f"not done within {LONGEST:.0f} s"}
        time.sleep(pause)
    used, memory, times = worker.cpu(), worker.memory(), dict(marks)
    if is_noop:
        took, used = times["last"] - times["warm"], used - cpu["warm"]
        start = times["first"] - worker.began
        return _figures(many, took, used, memory, start)
    began = min(time for _, time in marks)
    figures = _figures(many, times["done"] - began, used - cpu.get("taken", 0.0), memory, began - worker.began)
    return figures | {"after_last_taken_s": times["done"] - times["taken"]}


def _figures(many: int, took: float, used: float, memory: float, start: float) -> dict[str, Any]:
    return {
        "tasks_per_s": many / took,
        "took_s": took,
        "cpu_us_per_task": used / many * 1e6,
        "memory_mb": memory,
        "start_s": start,
    }


def _median(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    good = [row for row in rows if "failed" not in row]
    if not good:
        return dict(rows[0])
    return {name: statistics.median(row[name] for row in good) for name in good[0]}


def show(console: Console, figures: Mapping[str, Any]) -> None:
    for name, found in figures.items():
        console.print(_table(SCENARIOS[name], found))


def _table(scenario: Scenario, found: Mapping[str, Mapping[str, Any]]) -> Table:
    naps = scenario.load == "nap"
    table = Table(title=scenario.title, title_justify="left")
    table.add_column("worker")
    last = "s after last was taken" if naps else "× best of Celery"
    for heading in ("tasks/s", "seconds", "CPU µs/task", "MB", "start s", last):
        table.add_column(heading, justify="right")
    best = max((row.get("tasks_per_s", 0.0) for name, row in found.items() if name.startswith("Celery")), default=0.0)
    for name, row in found.items():
        if "failed" in row:
            table.add_row(name, row["failed"])
            continue
        ratio = f"{row['tasks_per_s'] / best:.2f}" if best else ""
        table.add_row(
            name,
            f"{row['tasks_per_s']:,.0f}",
            f"{row['took_s']:.2f}",
            f"{row['cpu_us_per_task']:,.0f}",
            f"{row['memory_mb']:.0f}",
            f"{row['start_s']:.1f}",
            f"{row['after_last_taken_s']:.2f}" if naps else ratio,
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=TASKS, help="no-op tasks for each worker")
    parser.add_argument("--sleepers", type=int, default=SLEEPERS)
    parser.add_argument("--mixed", type=int, default=MIXED)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=[], metavar="SCENARIO")
    parser.add_argument("--workers", nargs="+", choices=[c.name for c in CANDIDATES], default=[], metavar="WORKER")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = Sizes(options.tasks, options.sleepers, options.mixed)
    figures = run(sizes, options.rounds, options.only, options.workers)
    show(Console(), figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
