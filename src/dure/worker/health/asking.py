"""Asks the broker about queues on the consumer's own connection, from its loop, without waiting for the answers.

py-amqp has no such call: all of its questions read the connection until they are answered, which a loop must not. So
the frame is sent, and the answer is taken where py-amqp hands it out. An answer also proves that the connection is
alive in both directions, whatever the kernel believes of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from amqp import spec

_PASSIVE = (True, False, False, False, False)
_FORMAT = "BsbbbbbF"


class Told(NamedTuple):
    ready: int
    consumers: int


class Asking:
    """One question at a time, each queue in its turn."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._waiting: deque[str] = deque()
        self.told: dict[str, Told] = {}
        self.refusal: str | None = None
        self.is_open = False
        channel._callbacks[spec.Channel.Close] = self._on_close

    def ask(self, queues: Iterable[str]) -> None:
        """Ask about each of them; `told` has the answers once `is_open` is false."""
        self.told = {}
        self._waiting = deque(queues)
        self.is_open = True
        self._next()

    def _next(self) -> None:
        if not self._waiting:
            self.is_open = False
            return
        self._channel._pending[spec.Queue.DeclareOk] = self._on_answer
        self._channel.send_method(spec.Queue.Declare, _FORMAT, (0, self._waiting[0], *_PASSIVE, {}))

    def _on_answer(self, _: Any, queue: str, ready: int, consumers: int) -> None:
        self._waiting.popleft()
        self.told[queue] = Told(ready, consumers)
        self._next()

    def _on_close(self, code: int, text: str, *_: Any) -> None:
        """The queue is not there, or may not be looked at; py-amqp would raise that in the loop."""
        self.refusal = f"{code} {text}"
        self._channel.send_method(spec.Channel.CloseOk)
        self._channel.is_open = False
