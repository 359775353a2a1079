"""Acknowledgements on their way to the file: gathered, so that they cost little, but never kept for long.

They travel with the next claim when there is one soon. When the consumer's thread stays in a callback instead, a
thread that lives only while there is something to send does it after `LONGEST_DELAY`: a finished job is not run again
because the one after it crashed an hour later.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence

from dure.broker.errors import BrokerUnavailable
from dure.broker.message import Claim, Delivery
from dure.broker.store import Store

LONGEST_DELAY = 0.005
_LINGER = 1.0
_RETRY_AFTER = 0.5

logger = logging.getLogger(__name__)


class Settler:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._tags: deque[int] = deque()
        self._sending = threading.Lock()
        self._arrived = threading.Event()
        self._starting = threading.Lock()
        self._closed = False
        self._process = 0  # whose thread is running; a fork leaves it behind

    def __bool__(self) -> bool:
        return bool(self._tags)

    def add(self, tag: int) -> None:
        self._tags.append(tag)
        if self._process != os.getpid():
            self._start()
        if not self._arrived.is_set():
            self._arrived.set()

    def turn(self, claims: Sequence[Claim]) -> list[list[Delivery]]:
        """Send what is gathered and claim, in one transaction."""
        with self._sending:
            tags = self._take()
            try:
                return self._store.turn(tags, claims)
            except BaseException:
                self._tags.extendleft(reversed(tags))
                raise

    def flush(self) -> None:
        if not self._tags and not self._sending.locked():
            return
        with self._sending:
            tags = self._take()
            try:
                self._store.ack(tags)
            except BaseException:
                self._tags.extendleft(reversed(tags))
                raise

    def close(self) -> None:
        """Send the last ones; afterwards there is nobody to send to."""
        self._closed = True
        self.flush()

    def _take(self) -> list[int]:
        tags = []
        while self._tags:
            tags.append(self._tags.popleft())
        return tags

    def _start(self) -> None:
        with self._starting:
            if self._process != os.getpid():
                self._process = os.getpid()
                threading.Thread(target=self._run, name="dure-settler", daemon=True).start()

    def _run(self) -> None:
        while True:
            if not self._arrived.wait(_LINGER):
                with self._starting:
                    if not self._arrived.is_set():
                        self._process = 0
                        return
            self._arrived.clear()
            time.sleep(LONGEST_DELAY)
            if self._closed:
                return
            if not self._tags:
                continue
            try:
                self.flush()
            except BrokerUnavailable as error:
                # The consumer's own thread meets the same error and reconnects; until then, keep them.
                logger.warning("acknowledgements wait: %s", error)
                time.sleep(_RETRY_AFTER)
                self._arrived.set()
