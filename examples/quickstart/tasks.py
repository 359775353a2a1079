"""Plain Celery: nothing in this module knows Dure."""

import time
from typing import TypedDict

from celery import Celery

from examples.quickstart.settings import Durations

app = Celery("quickstart")
durations = Durations()


class SumAndMultiples(TypedDict):
    sum: int
    multiplied: list[int]


@app.task
def add_task(x: int, y: int) -> int:
    """Add two numbers, slowly."""
    time.sleep(durations.add_seconds)
    return x + y


@app.task
def multi_task(x: int, y: int) -> int:
    """Multiply two numbers."""
    time.sleep(durations.multi_seconds)
    return x * y


@app.task
def sum_multiply_task(numbers: list[int] | int) -> SumAndMultiples:
    """Sum the numbers, and multiply each by the sum; one number alone counts as a list of one."""
    time.sleep(durations.sum_seconds)
    several = [numbers] if isinstance(numbers, int) else numbers
    total = sum(several)
    return {"sum": total, "multiplied": [number * total for number in several]}
