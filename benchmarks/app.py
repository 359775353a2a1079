"""The Celery application whose jobs are timed."""

from celery import Celery

app = Celery("bench")


@app.task(name="bench.add")
def add(x: int, y: int) -> int:
    return x + y
