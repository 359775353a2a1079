"""The Celery application under test: its one task leaves a mark outside of everything, and returns its number."""

import os
import time
from typing import Any

from celery import Celery, Task

from chaos.marks import BEGIN, END, Mark

app = Celery("chaos")


@app.task(name="chaos.mark", bind=True)
def mark(self: "Task[Any, Any]", number: int) -> int:
    """Leave a mark, take a few milliseconds, leave another, return the number."""
    _leave(BEGIN, number, str(self.request.id))
    time.sleep(0.01)
    _leave(END, number, str(self.request.id))
    return number


def _leave(kind: str, number: int, job_id: str) -> None:
    line = Mark(number=number, pid=os.getpid(), at=time.time(), kind=kind, job_id=job_id).line()
    file = os.open(os.environ["CHAOS_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line)  # one call: a line is there or is not, also when the process is killed
    finally:
        os.close(file)
