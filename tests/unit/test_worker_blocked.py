"""Who holds the loop up is found by a thread that asks the loop, and looks at its stack."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from dure.worker import log
from dure.worker.health.blocked import LoopWatch
from dure.worker.health.health import Health
from dure.worker.memory import Memory

DEADLINE = 20.0
LIMIT = 0.05


@pytest.fixture
def pool() -> Iterator[Any]:
    """Its loop runs in a thread, and something runs on it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield SimpleNamespace(loop=loop, loop_thread=thread.ident, coroutines=SimpleNamespace(running={"a job"}))
    loop.call_soon_threadsafe(loop.stop)
    thread.join(DEADLINE)
    loop.close()


def _await_lines(logs: Sequence[Any], count: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while len(logs) < count:
        assert time.monotonic() < deadline, logs
        time.sleep(0.01)


def test_a_block_that_began_before_the_loop_answered_once_is_told_with_its_stack(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs: list[list[str]] = []
    monkeypatch.setattr(log, "loop_blocked", lambda job, seconds, frames: logs.append(frames))
    monkeypatch.setattr(log, "loop_turns_again", lambda job, seconds: logs.append([]))
    began, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        let_go.wait(DEADLINE)

    pool.loop.call_soon_threadsafe(hold)
    assert began.wait(DEADLINE)
    LoopWatch(pool, Health(Memory()), LIMIT).start()
    try:
        _await_lines(logs, 1)
    finally:
        let_go.set()
    _await_lines(logs, 2)  # that it turns again
    stack = logs[0]
    assert "test_worker_blocked.py" in stack[0]
    assert stack[0].endswith(" in hold")


def test_a_lag_is_told_as_soon_as_there_is_a_loop(pool: Any) -> None:
    health = Health(Memory())
    LoopWatch(pool, health, DEADLINE).start()  # the first call is far off
    assert health.loop_lag == 0.0
