"""The Celery application whose jobs are timed."""

from typing import Any

from celery import Celery

app = Celery("bench")


@app.task(name="bench.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="bench.step")
def step(*_: Any) -> int:
    """Does nothing, with whatever the step before it returned."""
    return 0
