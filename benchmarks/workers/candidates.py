"""The workers, each tuned as its documentation says.

Celery      short tasks: a large prefetch; prefork with a process for each processor, threads and greenlets for
            what waits. Messages are acknowledged early, its default.
Dramatiq    threads for short tasks, `dramatiq-gevent` for many that wait.
Taskiq      uvloop, as many messages prefetched as tasks may run.
Dure        its defaults: acknowledged when the result is stored and the event confirmed.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

_CELERY = "celery -A benchmarks.workers.celery_app:app worker --without-gossip --without-mingle -l WARNING"
_DURE = "dure worker -A benchmarks.workers.celery_app:app --without-gossip --without-mingle -l WARNING"
_DRAMATIQ = "dramatiq benchmarks.workers.dramatiq_app:broker"
_DRAMATIQ_GEVENT = "dramatiq-gevent benchmarks.workers.dramatiq_app:broker"
_TASKIQ = "taskiq worker benchmarks.workers.taskiq_app:broker --log-level WARNING"


@dataclass(frozen=True)
class Candidate:
    """`noop`, `nap` and `mix` are its options for that load; None where it has nothing for it."""

    name: str
    framework: str
    command: str
    noop: str
    nap: str | None
    mix: str | None
    prefix: str = ""  # of its tasks that wait
    two: str | None = None  # options for two processes; without, it is started twice
    environment: dict[str, str] = field(default_factory=dict)

    def arguments(self, load: str, processes: int) -> list[list[str]]:
        """Of each process to start."""
        options: str = getattr(self, load)
        if processes == 1:
            return [shlex.split(f"{self.command} {options}")]
        if self.two is not None:
            return [shlex.split(f"{self.command} {self.two}")]
        return [shlex.split(f"{self.command} {options} -n {name}@%h") for name in "ab"]


CANDIDATES = [
    Candidate("Celery solo", "celery", _CELERY, "-P solo --prefetch-multiplier 128", None, None),
    Candidate(
        "Celery threads",
        "celery",
        _CELERY,
        "-P threads -c 10 --prefetch-multiplier 16",
        "-P threads -c 1000 --prefetch-multiplier 1",
        "-P threads -c 100 --prefetch-multiplier 1",
    ),
    Candidate(
        "Celery prefork",
        "celery",
        _CELERY,
        "-P prefork -c 1 --prefetch-multiplier 128",
        None,
        "-P prefork -c 16 --prefetch-multiplier 1",
        two="-P prefork -c 2 --prefetch-multiplier 128",
    ),
    Candidate(
        "Celery gevent",
        "celery",
        _CELERY,
        "-P gevent -c 100 --prefetch-multiplier 64",
        "-P gevent -c 10000 --prefetch-multiplier 1",
        "-P gevent -c 100 --prefetch-multiplier 4",
        # Else it looks for heartbeats for a tenth of a second after each message.
        environment={"BENCH_HEARTBEAT": "0"},
    ),
    Candidate("Dure, sync", "celery", _DURE, "-P asyncio -c 100", None, None),
    Candidate(
        "Dure, async",
        "celery",
        _DURE,
        "-P asyncio -c 100",
        "-P asyncio -c 10000",
        "-P asyncio -c 100",
        prefix="aio_",
    ),
    Candidate(
        "Dramatiq",
        "dramatiq",
        _DRAMATIQ,
        "-p 1 -t 8",
        "-p 1 -t 1000",
        "-p 1 -t 100",
        two="-p 2 -t 8",
    ),
    Candidate(
        "Dramatiq gevent",
        "dramatiq",
        _DRAMATIQ_GEVENT,
        "-p 1 -t 100",
        "-p 1 -t 1000",
        "-p 1 -t 100",
        two="-p 2 -t 100",
    ),
    Candidate(
        "Taskiq",
        "taskiq",
        _TASKIQ,
        "--workers 1 --max-async-tasks 100",
        "--workers 1 --max-async-tasks 10000",
        "--workers 1 --max-async-tasks 100",
        two="--workers 2 --max-async-tasks 100",
    ),
]
