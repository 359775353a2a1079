"""One thread of a process publishes what all of its attempts tell, in batches.

    task's thread     put: append to the attempt's list, wake the thread if it sleeps        (microseconds)
    emitter's thread  every few ms: take all lists, number the entries, one message for many attempts
    attempt's end     flush: wait until the broker has confirmed all that was put

Entries get their numbers when they are taken: from one thread, so without a gap, in the order in which they were put.

What can go wrong:

- The connection is lost, or no confirm comes: what was not confirmed is published again, in its order. Entries may
  arrive twice; their numbers tell.
- The broker stays away: ENTRIES or BYTES are kept. Then `put` waits, and if nothing has moved for PATIENCE seconds,
  drops: a task must not hang on its output. A log line among the entries says how many are missing. An event loop is
  not kept waiting at all.
- An attempt ends meanwhile: it waits FLUSH seconds, and goes on. Its entries leave when the broker is back, and may
  come after its end.
- The process forks: the child has neither thread nor connection. Its copies of attempts take nothing more.
- The process is killed: what was not published is lost, some milliseconds of it.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
import weakref
from collections import deque
from typing import Protocol

from dure.entry import EntryKind
from dure.worker import log
from dure.worker.live.attempt import PROGRESS_PAUSE, Attempt, Pending, line_body
from dure.worker.live.messages import OVERHEAD, Message, messages

ENTRIES = 10_000
BYTES = 8 * 1_048_576
PATIENCE = 5.0
FLUSH = 10.0

_PAUSE = 0.005
_LONGEST_BREAK = 0.02
_STILL_WAITING = 0.05
_IDLE = 60.0
_LONGEST_PAUSE = 5.0
_UNDERWAY = 32  # messages that are not confirmed yet

_emitters: weakref.WeakSet[Emitter] = weakref.WeakSet()


class Way(Protocol):
    """What `line.Line` does."""

    @property
    def is_open(self) -> bool: ...

    def send(self, body: bytes, keys: list[str]) -> None: ...

    def confirmed(self, wait: float) -> int: ...

    def is_lost(self, exc: BaseException) -> bool: ...

    def close(self) -> None: ...


class Emitter:
    def __init__(
        self,
        line: Way,
        *,
        most_entries: int = ENTRIES,
        most_bytes: int = BYTES,
        patience: float = PATIENCE,
        flush_timeout: float = FLUSH,
    ) -> None:
        self._line = line
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._patience = patience
        self._flush_timeout = flush_timeout
        self._reset()
        _emitters.add(self)

    def _reset(self) -> None:
        # Reentrant: a finalizer that logs may run in the midst of `put`.
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._news = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self.is_lost = False
        self._asleep = False
        self._flushing = 0
        self._ready: deque[Attempt] = deque()
        self._late: deque[tuple[float, Attempt]] = deque()
        self._underway: deque[Message] = deque()
        self._entries = self._bytes = self._confirms = 0
        self._stalled = False
        self._next = 0.0
        self._pause = 0.1

    # In the tasks' threads.

    def put(self, attempt: Attempt, kind: EntryKind, body: bytes) -> bool:
        """False where the attempt has ended, or this is another process than its own."""
        pending = Pending(time.time(), kind, body)
        with self._lock:
            if attempt.closed or self.is_lost:
                attempt.closed = True
                return False
            if not self._has_room() and not self._make_room(attempt):
                return True
            if attempt.dropped:
                self._say_dropped(attempt)
            self._append(attempt, pending)
        return True

    def put_late(self, attempt: Attempt, body: bytes) -> None:
        """Put this progress in a while, unless there is a later one by then."""
        with self._lock:
            if attempt.late is None:
                self._late.append((time.monotonic() + PROGRESS_PAUSE, attempt))
                if self._asleep:
                    self._work.notify()
            attempt.late = body

    def flush(self, attempt: Attempt, *, close: bool = False) -> bool:
        """Return when all that was put has been confirmed, or False after FLUSH seconds."""
        with self._lock:
            if self.is_lost:
                return False
            self._put_now(attempt)
            if attempt.dropped:
                self._say_dropped(attempt)
            attempt.closed = attempt.closed or close
            last = attempt.accepted
            if attempt.confirmed >= last:
                return True
            self._flushing += 1
            self._work.notify()
            try:
                in_time = self._news.wait_for(lambda: attempt.confirmed >= last, self._flush_timeout)
            finally:
                self._flushing -= 1
        if not in_time:
            log.entries_left(attempt.job_id, self._flush_timeout)
        return in_time

    def forget(self) -> None:
        """In a forked child: nothing of this is ours, the lock least of all."""
        self._reset()
        self.is_lost = True

    def _append(self, attempt: Attempt, pending: Pending) -> None:
        self._entries += 1
        self._bytes += len(pending.body) + OVERHEAD
        attempt.accepted += 1
        attempt.pending.append(pending)
        if not attempt.listed:
            attempt.listed = True
            self._ready.append(attempt)
        if self._asleep:
            self._work.notify()
        elif self._thread is None:
            self._start()

    def _has_room(self) -> bool:
        return self._entries < self._most_entries and self._bytes < self._most_bytes

    def _make_room(self, attempt: Attempt) -> bool:
        while not self._stalled and not _is_loop_running():
            before = self._confirms
            if self._news.wait_for(self._has_room, self._patience):
                return not attempt.closed
            if self._confirms == before:
                self._stalled = True
        attempt.dropped += 1
        return False

    def _say_dropped(self, attempt: Attempt) -> None:
        text = f"{attempt.dropped} entries were dropped here: the broker was away or too slow"
        attempt.dropped = 0
        self._append(attempt, Pending(time.time(), EntryKind.LOG, line_body("WARNING", "dure", text)))

    def _put_now(self, attempt: Attempt) -> None:
        body, attempt.late = attempt.late, None
        if body is not None and not attempt.closed:
            attempt.progress_at = time.monotonic()
            self._append(attempt, Pending(time.time(), EntryKind.PROGRESS, body))

    def _start(self) -> None:
        # In an empty context: what is logged in the thread is not the task's.
        run = contextvars.Context().run
        self._thread = threading.Thread(target=run, args=(self._run,), name="dure-emitter", daemon=True)
        self._thread.start()

    # In the emitter's thread.

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except Exception as exc:
                self._on_trouble(exc)

    def _turn(self) -> None:
        if self._underway:
            self._read_confirms()
        else:
            self._await_work()
        begun = time.monotonic()
        self._underway.extend(messages(self._take()))
        for message in self._underway:
            if not message.is_sent:
                self._line.send(message.body, message.keys)
                message.is_sent = True
        # A busy machine gets larger batches.
        now = time.monotonic()
        self._next = max(self._next, now + min(2 * (now - begun), _LONGEST_BREAK))

    def _await_work(self) -> None:
        """Sleep until something is to be sent; close a connection that nobody needs for long."""
        with self._lock:
            while True:
                self._put_due()
                now = time.monotonic()
                if self._ready:
                    if now >= self._next or self._flushing:
                        return
                    self._work.wait(self._next - now)
                    continue
                self._asleep = True
                in_time = self._work.wait(max(0.0, self._late[0][0] - now) if self._late else _IDLE)
                self._asleep = False
                if not in_time and not self._late:
                    break
        if self._line.is_open:
            self._line.close()

    def _read_confirms(self) -> None:
        until_next = self._next - time.monotonic()
        is_slow = len(self._underway) >= _UNDERWAY or until_next < -1.0
        through = self._line.confirmed(_STILL_WAITING if is_slow else until_next if until_next > 0 else _PAUSE)
        with self._lock:
            for _ in range(through):
                self._settle(self._underway.popleft())
            if through:
                self._news.notify_all()
            self._put_due()

    def _settle(self, message: Message) -> None:
        for attempt, last in message.lasts:
            attempt.confirmed = last
        self._entries -= message.entries
        self._bytes -= message.size
        self._confirms += 1
        self._stalled = False
        self._pause = 0.1

    def _put_due(self) -> None:
        now = time.monotonic()
        while self._late and self._late[0][0] <= now:
            self._put_now(self._late.popleft()[1])

    def _take(self) -> list[tuple[Attempt, list[Pending]]]:
        if len(self._underway) >= _UNDERWAY or not (self._flushing or time.monotonic() >= self._next):
            return []
        taken = []
        with self._lock:
            for attempt in self._ready:
                attempt.listed = False
                taken.append((attempt, attempt.pending))
                attempt.pending = []
            self._ready.clear()
        if taken:
            self._next = time.monotonic() + _PAUSE
        return taken

    def _on_trouble(self, exc: Exception) -> None:
        may_heal = self._line.is_lost(exc)
        self._line.close()
        for message in self._underway:
            message.is_sent = False
        if not may_heal and self._underway:
            log.entries_dropped(f"{type(exc).__name__}: {exc}")
            with self._lock:
                self._settle(self._underway.popleft())
                self._news.notify_all()
            return
        log.entries_wait(exc)
        time.sleep(self._pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _after_fork() -> None:
    for emitter in list(_emitters):
        emitter.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
