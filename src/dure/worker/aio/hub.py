"""kombu's event hub on an asyncio loop.

Celery's main loop (`asynloop`) stays what it is: it takes one `next` after another of `create_loop`, and looks in
between whether the worker is to end, heartbeats failed or the prefetch count changed. Each `next` here turns the
asyncio loop for a while. What a callback of Celery's raises ends the turn and is raised from there, as from kombu's
hub: a lost connection, a shutdown by remote control.

Descriptors stay in kombu's own epoll, and the asyncio loop waits for that one. (libuv would make each of them
non-blocking, and py-amqp's are not: it waits in them while it opens a channel.)

Outside of Celery's main loop, while it connects or ends, `run` turns the loop until something is done, so coroutines
go on running.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Awaitable, Callable, Iterator
from queue import Empty
from typing import Any, TypeVar

from celery.utils.log import get_logger
from kombu.asynchronous import Hub
from kombu.utils.eventio import ERR, READ
from vine import Thenable, promise

from dure.worker.aio.timer import LoopTimer

_T = TypeVar("_T")

_LONGEST_TURN = 0.1  # seconds; how late a signal is noticed, and how often an idle worker wakes

_logger = get_logger("celery.worker.hub")


class LoopHub(Hub):
    on_tick: Any
    propagate_errors: tuple[type[BaseException], ...]
    readers: dict[int, Any]
    writers: dict[int, Any]
    _poller: Any

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.aio = loop
        self._thread = threading.get_ident()
        self._turning = False
        self._stopping = False
        self._ticking = False
        self._error: BaseException | None = None
        super().__init__(LoopTimer(loop, self._on_timer_error))

    def run(self, awaitable: Awaitable[_T]) -> _T:
        """Turn the loop until it is done."""
        return self.aio.run_until_complete(_whole(awaitable))

    def _create_poller(self) -> None:
        super()._create_poller()
        queue = getattr(self._poller, "_epoll", None) or self._poller._kqueue
        self._poller_fd = queue.fileno()
        self.aio.add_reader(self._poller_fd, self._on_ready)

    def _close_poller(self) -> None:
        if self._poller is not None and not self.aio.is_closed():
            self.aio.remove_reader(self._poller_fd)
        super()._close_poller()

    def _on_ready(self) -> None:
        for fd, event in self._poller.poll(0) or ():
            found = self.readers.get(fd) if event & (READ | ERR) else None
            found = found or self.writers.get(fd)
            if found is None:
                self.remove(fd)
            else:
                self._call(*found)

    def call_soon(self, callback: Any, *args: Any) -> Any:
        if not isinstance(callback, Thenable):
            callback = promise(callback, args)
        if threading.get_ident() == self._thread:
            self.aio.call_soon(self._call, callback, ())
        elif not self.aio.is_closed():
            self.aio.call_soon_threadsafe(self._call, callback, ())
        return callback

    def soon(self, callback: Callable[[], object]) -> None:
        """`call_soon`, without a promise."""
        if threading.get_ident() == self._thread:
            self.aio.call_soon(self._call, callback, ())
        elif not self.aio.is_closed():
            self.aio.call_soon_threadsafe(self._call, callback, ())

    def create_loop(self) -> Iterator[None]:  # type: ignore[override]
        while True:
            self._turn()
            yield

    def end_turn(self) -> None:
        """Have Celery's main loop look around now."""
        if self._turning:
            self._stop()

    def _stop(self) -> None:
        """Once a turn: uvloop keeps a second stop for whoever runs the loop next."""
        if not self._stopping and self.aio.is_running():
            self._stopping = True
            self.aio.stop()

    def _turn(self) -> None:
        self._turning = True
        self._stopping = False
        self._tick()
        alarm = self.aio.call_later(_LONGEST_TURN, self._stop)
        try:
            if self._error is None:
                self.aio.run_forever()
        finally:
            alarm.cancel()
            self._turning = False
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _pop_ready(self) -> tuple[()]:  # type: ignore[override]
        """What was called for soon is called by the loop; once more, when the hub is closed."""
        if not (self.aio.is_running() or self.aio.is_closed()):
            self.run(asyncio.sleep(0))
            self.run(asyncio.sleep(0))
        return ()

    def _call(self, callback: Callable[..., object], args: Any) -> None:
        try:
            callback(*args)
        except Empty:
            pass
        except BaseException as exc:
            self._raise(exc)
        if self.on_tick and not self._ticking:
            self._ticking = True
            self.aio.call_soon(self._tick)

    def _tick(self) -> None:
        self._ticking = False
        for callback in [*self.on_tick]:
            try:
                callback()
            except BaseException as exc:
                self._raise(exc)

    def _on_timer_error(self, exc: BaseException) -> None:
        fatal = isinstance(exc, (*self.propagate_errors, MemoryError, AssertionError)) or (
            isinstance(exc, OSError) and exc.errno == errno.ENOMEM
        )
        if fatal or not isinstance(exc, Exception):
            self._raise(exc)
        else:
            _logger.error("Error in timer: %r", exc, exc_info=exc)

    def _raise(self, exc: BaseException) -> None:
        if not self._turning:
            if isinstance(exc, Exception):
                _logger.error("Error while the worker connects or ends: %r", exc, exc_info=exc)
            return
        if self._error is None:
            self._error = exc
        self._stop()


async def _whole(awaitable: Awaitable[_T]) -> _T:
    return await awaitable
