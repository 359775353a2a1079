"""An ordinary Celery application; of its tasks only `shop.plan` knows Dure."""

import time
from pathlib import Path
from typing import Any

from celery import Celery, chain, group

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


@app.task(name="shop.hold")
def hold(path: str) -> str:
    """Runs until somebody has made the file, for 20 seconds at most."""
    end = time.monotonic() + 20
    while not Path(path).exists() and time.monotonic() < end:
        time.sleep(0.01)
    return "held"


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


@app.task(name="shop.needs")
def needs(value: Any, path: str) -> Any:
    """Fails until somebody has made the file."""
    if not Path(path).exists():
        raise FileNotFoundError(path)
    return value


@app.task(name="shop.plan")
def plan(form: str) -> Any:
    """Goes on as a workflow."""
    from dure import DAG

    dag = DAG()
    sums = dag.map(add, [1, 2], y=1)
    dag.add(total, sums.result[0], sums.result[1], 10).set(name="sum")
    return {
        "dag": lambda: dag,
        "chain": lambda: chain(add.s(1, 2), add.s(10)),
        "group": lambda: group(add.s(n, n) for n in range(2)),
        "task": lambda: add.s(1, 2),
    }[form]()
