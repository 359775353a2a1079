"""Celery's suite starts its worker in a thread of its own process. This has it start one as an operator does, and run
only the part of a file that is asked for.
"""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery.contrib.testing.worker
from celery.utils.nodenames import anon_nodename

START_TIMEOUT = 90.0
STOP_TIMEOUT = 30.0


@contextlib.contextmanager
def start_worker(app: Any, **_: Any) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "tests.celery_suite.app", "worker", "-l", "INFO"]
    command += ["-n", anon_nodename(), *shlex.split(os.environ["SUITE_OPTIONS"])]  # the suite asks it by that name
    with Path(os.environ["SUITE_LOG"]).open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not app.control.ping(timeout=1.0):
            assert process.poll() is None, "the worker ended"
            assert time.monotonic() < deadline, "the worker does not answer"
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()


def pytest_collection_modifyitems(items: list[Any]) -> None:
    only = json.loads(os.environ["SUITE_ONLY"])
    if only:
        items[:] = [item for item in items if _name(item) in only]
    else:
        place, of = map(int, os.environ["SUITE_SHARD"].split("/"))
        items[:] = items[place - 1 :: of]


def _name(item: Any) -> str:
    return ".".join(item.nodeid.split("::")[1:])


celery.contrib.testing.worker.start_worker = start_worker
