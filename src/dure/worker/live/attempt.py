"""One attempt at a job, as far as it tells of itself: what may be told, and in what form."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

import msgspec
from kombu.exceptions import EncodeError

from dure.entry import EntryKind, item_head
from dure.watch import watch_keys
from dure.worker.live.cancelling import check
from dure.worker.result import encode

LARGEST = 262_144

# Between two entries of progress, in seconds.
PROGRESS_PAUSE = 0.1

_LONGEST_LINE = 16_384
_MORE_LINES = "further log lines are not kept: a job keeps DURE_CAPTURE_LINES of each attempt"


class Pending(NamedTuple):
    """An entry without its number yet; `body` is JSON."""

    at: float
    kind: EntryKind
    body: bytes


class Sink(Protocol):
    """Takes entries of attempts, and numbers and publishes them."""

    def put(self, attempt: Attempt, kind: EntryKind, body: bytes) -> bool: ...

    def put_late(self, attempt: Attempt, body: bytes) -> None: ...

    def flush(self, attempt: Attempt, *, close: bool = False) -> bool: ...


class Eager:
    """A task that is run in place, within another or outside of any: what it tells goes nowhere."""

    def __init__(self, outer: Here) -> None:
        self.outer = outer


class Attempt:
    __slots__ = (
        "_head",
        "accepted",
        "closed",
        "confirmed",
        "dropped",
        "is_first",
        "job_id",
        "late",
        "lines",
        "lines_limit",
        "listed",
        "numbered",
        "pending",
        "progress_at",
        "root_id",
        "run",
        "sink",
        "task",
        "worker",
    )

    outer: Here = None

    def __init__(
        self,
        sink: Sink,
        job_id: str,
        *,
        task: str | None = None,
        root_id: str | None = None,
        worker: str | None = None,
        lines: int = 1000,
        is_first: bool = False,
    ) -> None:
        self.sink = sink
        self.job_id = job_id
        self.run = time.time_ns() // 1000
        self.task = task
        self.root_id = root_id
        self.worker = worker
        self.is_first = is_first
        self._head: bytes | None = None
        self.lines = 0
        self.lines_limit = lines
        self.progress_at = -math.inf
        self.late: bytes | None = None  # progress that waits until the next may leave
        # The rest is the sink's.
        self.pending: list[Pending] = []
        self.listed = False
        self.closed = False
        self.accepted = 0
        self.numbered = 0
        self.confirmed = 0
        self.dropped = 0

    @property
    def head(self) -> bytes:
        """Made when it is needed: most attempts tell nothing."""
        if self._head is None:
            self._head = item_head(
                self.job_id,
                self.run,
                task=self.task,
                root_id=self.root_id,
                worker=self.worker,
                is_first=self.is_first,
            )
        return self._head

    @property
    def keys(self) -> list[str]:
        return watch_keys(self.job_id, self.task, self.root_id)

    @property
    def is_confirmed(self) -> bool:
        return self.late is None and not self.dropped and self.confirmed >= self.accepted

    def emit(self, chunk: Any) -> None:
        check(self.job_id)
        self._put(EntryKind.OUTPUT, _encoded("emit", chunk))

    def progress(self, current: Any, total: Any, message: Any, more: dict[str, Any]) -> None:
        check(self.job_id)
        body = _encoded(
            "progress",
            {
                "current": _number("current", current),
                "total": _number("total", total),
                "message": None if message is None else str(message),
                **more,
            },
        )
        now = time.monotonic()
        if now >= self.progress_at + PROGRESS_PAUSE and self.late is None:
            self.progress_at = now
            self._put(EntryKind.PROGRESS, body)
        else:
            self._check()
            self.sink.put_late(self, body)

    def line(self, level: str, logger: str, message: str) -> None:
        """A log line. It is never the task's fault if it cannot be told."""
        if self.lines > self.lines_limit or self.closed:
            return
        self.lines += 1
        if self.lines > self.lines_limit:
            level, logger, message = "WARNING", "dure", _MORE_LINES
        if len(message) > _LONGEST_LINE:
            message = message[:_LONGEST_LINE] + "…"
        self.sink.put(self, EntryKind.LOG, line_body(level, logger, message))

    def _put(self, kind: EntryKind, body: bytes) -> None:
        if not self.sink.put(self, kind, body):
            self._check()

    def _check(self) -> None:
        if self.closed:
            raise RuntimeError(
                f"job {self.job_id} tells nothing any more: its task has ended, or this is another process than the "
                f"one that runs it; wait in the task for its threads, and hand back to it what its processes make"
            )


Here = Attempt | Eager | None

current: ContextVar[Here] = ContextVar("dure_attempt", default=None)


def line_body(level: str, logger: str, message: str) -> bytes:
    told = {"level": level, "logger": logger, "message": message}
    try:
        return msgspec.json.encode(told)
    except UnicodeEncodeError:
        return msgspec.json.encode({name: text.encode("utf-8", "replace").decode() for name, text in told.items()})


def _encoded(name: str, value: Any) -> bytes:
    try:
        body = encode(value)
    except EncodeError as exc:
        reason = str(exc).removeprefix("the result is no JSON: ")
        raise TypeError(
            f"dure.{name}() was given what is no JSON: {reason}; give plain values, a dataclass or a pydantic model"
        ) from exc
    if len(body) > LARGEST:
        raise ValueError(
            f"dure.{name}() was given {len(body):,} bytes of JSON, and takes {LARGEST:,}: store it elsewhere, and emit "
            f"a reference to it"
        )
    return body


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError(f"dure.progress() was given {value!r} as `{name}`; give a finite number, or None")
    return value
