"""Tasks that tell while they run, for the application of a site; each goes on when the file `go` is there."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from celery import Task

import dure
from tests.acceptance.tasks import app

log = logging.getLogger("shop.live")


def _await(path: str | None) -> None:
    while path is not None and not Path(path).exists():
        time.sleep(0.01)


@app.task(name="live.talk")
def talk(times: int, go: str | None = None, before: int = 0) -> str:
    """Says `before` numbers, waits, and says the others."""
    for n in range(times):
        if n == before:
            _await(go)
        dure.emit(n)
    return "said"


@app.task(name="live.steps")
def steps(total: int, go: str | None = None) -> int:
    """Progress, a line of log and output for each step; waits in the middle."""
    for n in range(1, total + 1):
        dure.progress(n, total, f"step {n}")
        log.info("at step %d", n)
        dure.emit({"step": n})
        if n == total // 2:
            _await(go)
    return total


@app.task(name="live.stumble", bind=True)
def stumble(self: Task[..., Any], times: int, falls: int) -> Any:
    """Each attempt says its number and `times` more; the first `falls` of them are retried."""
    attempt = self.request.retries
    for n in range(times):
        dure.emit([attempt, n])
    if attempt < falls:
        raise self.retry(countdown=0.05)
    return attempt


@app.task(name="live.break")
def break_down(times: int) -> None:
    for n in range(times):
        dure.emit(n)
    raise ValueError("broken")
