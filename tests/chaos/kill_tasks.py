"""The tasks of the workflow whose services are killed: each leaves a mark outside of Dure before it returns."""

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery

app = Celery("killed", set_as_current=False)


@app.task(name="killed.step")
def step(value: Any, *, run: str, node: str) -> int:
    """One more than the value, or than the sum of a list."""
    _mark(run, node, value)
    return (sum(value) if isinstance(value, list) else value) + 1


@app.task(name="killed.listed")
def listed(value: int, *, run: str, node: str) -> list[int]:
    _mark(run, node, value)
    return [value, value + 10, value + 20]


@app.task(name="killed.collect")
def collect(*values: Any, run: str, node: str) -> list[Any]:
    _mark(run, node, list(values))
    return list(values)


@app.task(name="killed.fail")
def fail(*, run: str, node: str) -> None:
    _mark(run, node, None)
    raise ValueError("as planned")


@app.task(name="killed.repaired")
def repaired(value: Any, *, run: str, node: str) -> Any:
    """Fails until somebody has repaired what it needs."""
    _mark(run, node, value)
    if not Path(os.environ["KILLED_FOLDER"], f"{run}.repaired").exists():
        raise RuntimeError("not repaired yet")
    return value


def _mark(run: str, node: str, value: Any) -> None:
    line = json.dumps([run, node, value]) + "\n"
    file = os.open(Path(os.environ["KILLED_FOLDER"], "marks"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())  # one call: a line is there or is not
    finally:
        os.close(file)
