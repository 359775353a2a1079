"""The Celery application whose jobs are timed."""

import asyncio
import time
from typing import Any

from celery import Celery

import dure

app = Celery("bench")


@app.task(name="bench.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="bench.step")
def step(*_: Any) -> int:
    """Does nothing, with whatever the step before it returned."""
    return 0


@app.task(name="bench.stream")
async def stream(rate: float, seconds: float, after: float = 0.0) -> int:
    """Emits the time, `rate` times a second, `after` so many seconds; returns how often."""
    began = time.time() + after
    total = int(rate * seconds)
    for n in range(total):
        await asyncio.sleep(max(0.0, began + n / rate - time.time()))
        dure.emit(time.time())
    return total


@app.task(name="bench.nap")
def nap(seconds: float) -> None:
    time.sleep(seconds)
