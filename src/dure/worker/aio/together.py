"""Results of many threads in one write, by whoever comes first.

    thread 1   put ─▶ nobody writes: store(1) ───────────▶ goes on
    thread 2        put ─▶ waits ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ is next: store(2, 3) ─▶ goes on
    thread 3             put ─▶ waits ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄▶ goes on

Each thread writes once at most, so none is kept at it by others that keep coming. For the loop's own attempts there is
`writer`, which never holds the loop up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_T = TypeVar("_T")

_here = threading.local()


def join() -> None:
    """From here on, what this thread stores goes together with what others do."""
    _here.joined = True


def is_joined() -> bool:
    return getattr(_here, "joined", False)


class _Place(Generic[_T]):
    __slots__ = ("error", "is_next", "item", "news")

    def __init__(self, item: _T) -> None:
        self.item = item
        self.news = threading.Event()  # it is stored, or next
        self.is_next = False
        self.error: BaseException | None = None


class Together(Generic[_T]):
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Place[_T]] = []
        self._is_writing = False

    def put(self, item: _T, store: Callable[[Sequence[_T]], object]) -> None:
        """Return when it is stored, by the `store` of this thread or of another; raises what that raised."""
        place = _Place(item)
        with self._lock:
            self._waiting.append(place)
            place.is_next = not self._is_writing
            self._is_writing = True
        if not place.is_next:
            place.news.wait()
        if place.is_next:
            self._write(store)
        elif place.error is not None:
            raise place.error

    def _write(self, store: Callable[[Sequence[_T]], object]) -> None:
        with self._lock:
            (own, *others), self._waiting = self._waiting, []
        error: BaseException | None = None
        try:
            store([own.item, *(place.item for place in others)])
        except BaseException as exc:
            error = exc
            raise
        finally:
            self._pass_on()
            for place in others:
                place.error = error
                place.news.set()

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting[0].is_next = True
                self._waiting[0].news.set()
            else:
                self._is_writing = False
