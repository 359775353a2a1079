"""A line to a broker that is a list."""

import threading
from typing import Any

from dure.entry import Entry, read_entries

DEADLINE = 20.0


class Broker:
    """A line that keeps what it is sent; it can be cut, and can hold its confirms back."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, list[str]]] = []
        self.attempts = 0
        self.confirms = threading.Event()
        self.confirms.set()
        self.trouble: Exception | None = None
        self.tried = threading.Event()
        self._waiting = 0

    is_open = True

    def send(self, body: bytes, keys: list[str]) -> None:
        try:
            self._is_well()
            self.sent.append((body, keys))
            self._waiting += 1
        finally:
            self.tried.set()  # last: whoever waits for it may make trouble, or end it, at once

    def confirmed(self, wait: float) -> int:
        try:
            self._is_well()
        except Exception:
            self.tried.set()  # what is not confirmed is not sent again before this goes well
            raise
        if not self.confirms.wait(wait):
            return 0
        through, self._waiting = self._waiting, 0
        return through

    def _is_well(self) -> None:
        trouble = self.trouble  # once: the test may end it meanwhile
        if trouble is not None:
            raise trouble

    def is_lost(self, exc: BaseException) -> bool:
        return isinstance(exc, OSError)

    def close(self) -> None:
        self._waiting = 0

    def entries(self, job_id: str = "job") -> list[Entry]:
        found: dict[int, Entry] = {}
        for body, _ in self.sent:
            for told in read_entries(body):
                if told.job_id == job_id:
                    found |= {entry.n: entry for entry in told.entries}
        assert list(found) == list(range(1, len(found) + 1)), "a gap, or another order"
        return list(found.values())

    def bodies(self, job_id: str = "job") -> list[Any]:
        return [entry.body for entry in self.entries(job_id)]
