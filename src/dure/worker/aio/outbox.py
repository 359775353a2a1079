"""The outbox, which takes what the loop's thread puts into it once a turn, and gives its acknowledgements back at once.

Waking another thread for each event costs more than the event. Whatever another thread puts takes along what was put
here before: a job is received on the loop and begins in a thread. Acknowledgements are settled on the loop, all of a
batch together; one that is behind nothing never leaves it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

from dure.worker import log
from dure.worker.aio.hub import LoopHub
from dure.worker.outbox import _BOUND, Callback, Outbox


class _Settlement(partial[object]):
    """A callback for the loop's thread."""


class GatheringOutbox(Outbox):
    """Made of the worker's outbox by `of`, for others hold that."""

    _hub: LoopHub
    _loop_thread: int
    _gathered: deque[Any]
    _confirmed: deque[Callback]
    _is_coming: bool

    @classmethod
    def of(cls, outbox: Outbox, hub: LoopHub) -> None:
        outbox.__class__ = cls
        assert isinstance(outbox, cls)  # noqa: S101  for mypy
        outbox._hub, outbox._loop_thread = hub, threading.get_ident()
        outbox._gathered, outbox._confirmed, outbox._is_coming = deque(), deque(), False

    def settle(self, callback: Callback) -> None:
        if self._is_here() and not (self._gathered or self._waiting or self._busy):
            self._call([callback])
        else:
            self._append(_Settlement(callback))

    def drain(self, timeout: float) -> bool:
        is_here = self._is_here()
        if is_here:
            self._pass_on()
        is_empty = super().drain(timeout)
        if is_here:
            self._settle_confirmed()  # the loop may not turn again
        return is_empty

    def _is_here(self) -> bool:
        return threading.get_ident() == self._loop_thread and self._pid == os.getpid()

    def _append(self, item: Any) -> None:
        if self._pid != os.getpid():  # a forked child has no loop
            self.__class__ = Outbox  # type: ignore[assignment]
            self._append(item)
            return
        if not (self._is_here() and self._hub.aio.is_running()):
            self._put([item])
            return
        self._gathered.append(item)  # without the lock: to wait for it here, and for the interpreter's, takes longest
        if not self._is_coming:
            self._is_coming = True
            self._hub.aio.call_soon(self._pass_on)

    def _pass_on(self) -> None:
        self._is_coming = False
        self._put([])

    def _put(self, more: list[Any]) -> None:
        with self._changed:
            items = [self._gathered.popleft() for _ in range(len(self._gathered))] + more
            if not items:
                return
            if len(self._waiting) >= _BOUND:
                log.event_dropped("too many events wait")
                items = [item for item in items if callable(item)]
            self._waiting.extend(items)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dure-outbox", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _call(self, callbacks: Iterable[Callback]) -> None:
        others: list[Callback] = []
        for callback in callbacks:
            (self._confirmed if isinstance(callback, _Settlement) else others).append(callback)
        super()._call(others)
        if self._confirmed:
            self._hub.soon(self._settle_confirmed)

    def _settle_confirmed(self) -> None:
        while self._confirmed:
            super()._call([self._confirmed.popleft()])
