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
def stream(count: int, pause: float = 0.01) -> int:
    """Emits numbers, slowly enough that much can happen meanwhile."""
    log.warning("begins")
    for number in range(count):
        dure.emit(number)
        time.sleep(pause)
    return count


@app.task(name="tasks.until")
def until(path: str) -> str:
    """Emits one chunk, then waits for somebody to make the file."""
    dure.emit("waiting")
    while not Path(path).exists():
        time.sleep(0.02)
    return "there"
