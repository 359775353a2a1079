"""An ordinary Celery application, which knows nothing of Dure."""

import time
from typing import Any

from celery import Celery

app = Celery("shop", set_as_current=False)
app.conf.update(task_serializer="json", result_serializer="json", accept_content=["json"])


class Awkward(Exception):
    """Cannot be pickled, and cannot be made again from its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")
        self.made = lambda: None


@app.task(name="shop.add")
def add(x: int, y: int = 2) -> int:
    """Add two numbers."""
    return x + y


@app.task(name="shop.fail")
def fail(message: str) -> None:
    raise ValueError(message)


@app.task(name="shop.sleep")
def sleep(seconds: float) -> str:
    time.sleep(min(seconds, 20))
    return "slept"


@app.task(name="shop.echo")
def echo(value: Any) -> Any:
    return value


@app.task(name="shop.total")
def total(first: int, *rest: int) -> int:
    return first + sum(rest)


@app.task(name="shop.route")
def route(queue: str, args: str = "") -> str:
    """Its arguments are named as options are."""
    return f"{queue}{args}"


@app.task(name="shop.nothing")
def nothing() -> None:
    pass


@app.task(name="shop.awkward")
def awkward(how: str) -> Any:
    if how == "result":
        return object()
    raise Awkward("this", "that")
