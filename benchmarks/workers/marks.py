"""What the tasks do, in every worker alike. A mark is a line in a file: what happened, and when."""

from __future__ import annotations

import os
import time

_file = os.open(os.environ.get("BENCH_MARKS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def mark(name: str) -> None:
    os.write(_file, f"{name} {time.time()}\n".encode())


def burn(seconds: float) -> None:
    """Computes, for so much time of the processor."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(500))
