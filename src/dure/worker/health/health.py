"""What the worker's state is.

    connecting ──▶ consuming ◀──▶ busy            busy: it holds as many jobs as it may
        ▲              │
        └── connection lost; nothing is consumed from: paused
    any ──▶ draining

`alive` is false where the consumer's loop should turn and has not for half a minute. While it connects or drains, the
loop of most pools stands still by design, and the process is alive as long as it answers.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from typing import Any, Literal

from celery.bootsteps import CLOSE, RUN, TERMINATE  # type: ignore[attr-defined]
from celery.concurrency.solo import TaskPool as SoloPool
from celery.worker import state as worker_state

from dure.worker.memory import Memory

State = Literal["connecting", "consuming", "busy", "paused", "draining"]

_DEAD_AFTER = 30.0


class Health:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._state: State = "connecting"
        self._since = time.time()
        self._turned = time.monotonic()
        self.started = time.time()
        self.worker: Any = None  # Celery's, as soon as there is one
        self.consumer: Any = None  # while it is connected
        self.loop_lag: float | None = None  # seconds; None where there is no asyncio loop
        self.loop_blocks = 0
        self.restarts = 0
        self.restarted_for: str | None = None

    def turned(self) -> None:
        """The consumer's loop has turned."""
        self._turned = time.monotonic()
        self._note()

    def connected(self, consumer: Any) -> None:
        self.consumer = consumer
        self.turned()

    def lost(self) -> None:
        self.consumer = None
        self._note()

    def restarting(self, why: str) -> None:
        self.restarts += 1
        self.restarted_for = why

    @property
    def held(self) -> int:
        """Messages that are not settled yet."""
        return max(len(worker_state.requests), len(self._memory.running))

    def has_room(self, consumer: Any) -> bool:
        """Whether the broker may send more."""
        prefetch = consumer.qos.value if consumer.qos else 0
        return not prefetch or self.held < prefetch

    def tell(self) -> dict[str, Any]:
        state, consumer, since = self._note()
        return {
            "state": state,
            "alive": self._is_alive(consumer),
            "consuming": state in ("consuming", "busy"),
            "since": _time(since),
            "running": len(worker_state.active_requests),
            "held": self.held,
            "slots": self._slots,
            "loop_lag": self.loop_lag,
            "loop_blocks": self.loop_blocks,
            "restarts": self.restarts,
            "restarted_for": self.restarted_for,
            "worker": getattr(self.worker, "hostname", None),
            "pid": os.getpid(),
            "started": _time(self.started),
        }

    def _note(self) -> tuple[State, Any, float]:
        with self._lock:
            state, consumer = self._look()
            if state != self._state:
                self._state, self._since = state, time.time()
            return state, consumer, self._since

    def _look(self) -> tuple[State, Any]:
        consumer = self.consumer
        if self._is_ending:
            return "draining", None
        if consumer is None or consumer.connection is None or consumer.blueprint.state != RUN:
            return "connecting", None
        if not consumer.task_consumer or not consumer.task_consumer._active_tags:
            # Before the loop begins there is nothing to consume from either.
            return (
                "paused" if consumer.task_consumer and not consumer.task_consumer.queues else "connecting"
            ), consumer
        if not self.has_room(consumer) or len(worker_state.active_requests) >= self._slots:
            return "busy", consumer
        return "consuming", consumer

    @property
    def _is_ending(self) -> bool:
        if worker_state.should_stop not in (None, False) or worker_state.should_terminate not in (None, False):
            return True
        blueprint = getattr(self.worker, "blueprint", None)
        return getattr(blueprint, "state", None) in (CLOSE, TERMINATE)

    @property
    def _slots(self) -> int:
        pool = getattr(self.worker, "pool", None)
        return int(pool.num_processes or 0) if pool is not None else 0

    def _is_alive(self, consumer: Any) -> bool:
        if consumer is None or time.monotonic() - self._turned < _DEAD_AFTER:
            return True
        # This pool runs its jobs on the consumer's thread.
        return isinstance(consumer.pool, SoloPool) and bool(worker_state.active_requests)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
