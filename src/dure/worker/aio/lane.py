"""Attempts in their order, so many at once as there are slots."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dure.worker.aio.attempt import Attempt


class Lane:
    """`start` begins an attempt; who is done calls `leave`."""

    def __init__(self, slots: int, start: Callable[[Attempt], object]) -> None:
        self.slots = slots
        self.running: set[Attempt] = set()
        self.waiting: deque[Attempt] = deque()
        self._start = start

    def enter(self, attempt: Attempt) -> None:
        if len(self.running) < self.slots:
            self._begin(attempt)
        else:
            self.waiting.append(attempt)

    def leave(self, attempt: Attempt) -> bool:
        """False where it was not in."""
        if attempt not in self.running:
            return False
        self.running.discard(attempt)
        self.fill()
        return True

    def resize(self, slots: int) -> None:
        self.slots = slots
        self.fill()

    def fill(self) -> None:
        while self.waiting and len(self.running) < self.slots:
            attempt = self.waiting.popleft()
            if not attempt.is_over:
                self._begin(attempt)

    def _begin(self, attempt: Attempt) -> None:
        self.running.add(attempt)
        self._start(attempt)
