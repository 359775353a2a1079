"""What the pages ask for. `tell` and `divide` are those of clients/js/README.md."""

import logging
import time
from pathlib import Path

from celery import Celery

import dure

app = Celery("tasks", set_as_current=False)
log = logging.getLogger("tasks")


@app.task(name="tasks.tell")
def tell(text: str) -> int:
    """Tell a text word by word."""
    words = text.split()
    for number, word in enumerate(words, 1):
        dure.emit(word)
        dure.progress(number, len(words), "telling")
    return len(words)


@app.task(name="tasks.divide")
def divide(x: float, y: float) -> float:
    return x / y


@app.task(name="tasks.stream")
def stream(count: int, path: str) -> int:
    """Emits numbers, slowly enough that much can happen meanwhile; the second half when somebody has made the file."""
    log.warning("begins")
    for number in range(count):
        if number == count // 2:
            _await(path)
        dure.emit(number)
        time.sleep(0.01)
    return count


@app.task(name="tasks.until")
def until(path: str) -> str:
    """Emits one chunk, then waits for somebody to make the file."""
    dure.emit("waiting")
    _await(path)
    return "there"


def _await(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.02)
