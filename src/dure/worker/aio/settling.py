"""Acknowledgements and rejections on their way to the loop, without a promise for each message."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from dure.worker.aio.hub import LoopHub


class Settling:
    """What Celery takes a promise for: called once, with somebody who is told afterwards."""

    __slots__ = ("_args", "_function", "_next", "_on_error")

    def __init__(
        self, function: Callable[..., object], args: tuple[Any, ...] = (), on_error: Callable[..., object] | None = None
    ) -> None:
        self._function = function
        self._args = args
        self._on_error = on_error
        self._next: Callable[..., object] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        try:
            done = self._function(*self._args, *args, **kwargs)
        except Exception as exc:
            if self._on_error is None:
                raise
            self._on_error(exc)
            return
        if self._next is not None:
            self._next(done)

    def then(self, callback: Callable[..., object], on_error: Any = None) -> None:
        self._next = callback


class Soon:
    """Calls from any thread, in their order, on the loop: those of one turn together."""

    def __init__(self, hub: LoopHub) -> None:
        self._hub = hub
        self._calls: deque[Callable[[], object]] = deque()
        self._is_coming = False

    def call(self, function: Callable[[], object]) -> None:
        self._calls.append(function)
        if not self._is_coming:
            self._is_coming = True
            self._hub.soon(self._run)

    def _run(self) -> None:
        self._is_coming = False
        try:
            for _ in range(len(self._calls)):
                self._calls.popleft()()
        finally:
            if self._calls and not self._is_coming:
                self._is_coming = True
                self._hub.soon(self._run)
