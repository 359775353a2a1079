"""What a feed is tried with: tasks that tell, and wait for the test where it matters."""

import time
from pathlib import Path

import dure
from tests.acceptance.tasks import app

__all__ = ["app"]


@app.task(name="feed.count")
def count(until: int, gate: str | None = None, at: int = 0) -> int:
    """Says 0, 1, 2 …; before it says `at` it waits for the file `gate`."""
    for n in range(until):
        if gate is not None and n == at:
            _await(gate)
        dure.emit(n)
    return until


@app.task(name="feed.flood")
def flood(times: int, size: int) -> int:
    for n in range(times):
        dure.emit([n, "x" * size])
        time.sleep(0.002)
    return times


@app.task(name="feed.steps")
def steps(until: int) -> str:
    for n in range(until):
        dure.progress(n, until, f"step {n}")
    return "done"


def _await(gate: str) -> None:
    deadline = time.monotonic() + 60
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
