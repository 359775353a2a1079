"""The outbox, which takes what the loop's thread puts into it once a turn instead of one by one.

Waking another thread for each event costs more than the event. Whatever another thread puts takes along what was put
here before: a job is received on the loop and begins in a thread.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from dure.worker import log
from dure.worker.aio.hub import LoopHub
from dure.worker.outbox import _BOUND, Outbox


class GatheringOutbox(Outbox):
    """Made of the worker's outbox by `of`, for others hold that."""

    _hub: LoopHub
    _loop_thread: int
    _gathered: list[Any]

    @classmethod
    def of(cls, outbox: Outbox, hub: LoopHub) -> None:
        outbox.__class__ = cls
        assert isinstance(outbox, cls)  # noqa: S101  for mypy
        outbox._hub, outbox._loop_thread, outbox._gathered = hub, threading.get_ident(), []

    def drain(self, timeout: float) -> bool:
        if threading.get_ident() == self._loop_thread:
            self._pass_on()
        return super().drain(timeout)

    def _append(self, item: Any) -> None:
        if self._pid != os.getpid():  # a forked child has no loop
            self.__class__ = Outbox  # type: ignore[assignment]
            self._append(item)
            return
        if threading.get_ident() != self._loop_thread or not self._hub.aio.is_running():
            self._put([item])
            return
        with self._changed:
            self._gathered.append(item)
            is_first = len(self._gathered) == 1
        if is_first:
            self._hub.aio.call_soon(self._pass_on)

    def _pass_on(self) -> None:
        self._put([])

    def _put(self, items: list[Any]) -> None:
        with self._changed:
            items, self._gathered = self._gathered + items, []
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
