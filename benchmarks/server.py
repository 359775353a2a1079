"""A server process that is measured: started, waited for, and ended with its whole group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.services.service import free_port


@contextmanager
def uvicorn(app: str, environment: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """The URL and the process id of `uvicorn app` with one process and no access log."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--no-access-log", "--log-level", "warning"]
    with process(command, environment) as pid:
        _wait_for(f"http://127.0.0.1:{port}/openapi.json")
        yield f"http://127.0.0.1:{port}", pid


@contextmanager
def gateway(environment: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    port = free_port()
    with process([sys.executable, "-m", "dure", "serve", "--port", str(port)], environment) as pid:
        _wait_for(f"http://127.0.0.1:{port}/readyz")
        yield f"http://127.0.0.1:{port}", pid


@contextmanager
def process(command: Sequence[str], environment: Mapping[str, str], *, cwd: str | None = None) -> Iterator[int]:
    started = subprocess.Popen(
        command, env=os.environ | environment, start_new_session=True, stdout=subprocess.DEVNULL, cwd=cwd
    )
    try:
        yield started.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_for(url: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except (TimeoutError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
