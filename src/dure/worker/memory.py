"""Which jobs this process runs, and which it has lately run to an end: a message that comes again is not run again.

When the connection is lost while a job runs, the broker gives its message to somebody else, often to this process once
it is back. The attempt takes the new delivery over:

    delivery 1 ──▶ attempt runs ───── connection lost ──────────────── ends ──▶ settles delivery 2
                                       delivery 2 ──▶ taken over ────────▲

Only an attempt that is certain to run may do so: Celery drops those that wait when the connection is lost. A second
message for a job that still has its first one is acknowledged: if we die, the first one comes again.

An attempt is known until it settles its message, for its last event may wait for the broker. What it settled is
remembered for a while: the acknowledgement may not have arrived.

Settling (outbox thread) and taking over (consumer's thread) exclude one another, so no delivery falls in between.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NamedTuple

from dure.worker.deliveries import Stage

if TYPE_CHECKING:
    from dure.worker.request import Request

_REMEMBERED = 10_000


class Known(Enum):
    NOT = auto()
    TAKEN_OVER = auto()
    TWICE = auto()  # the job has another message, which is not settled yet
    ENDED = auto()


class Delivery(NamedTuple):
    message: Any
    acknowledge: Callable[..., object]
    reject: Callable[..., object]

    @property
    def is_attached(self) -> bool:
        """Whether the channel that it came by is still there to settle it."""
        return self.message.channel is None or self.message.channel.connection is not None


class Memory:
    """`running` and `ended` have the ids, for a quick look; everything else goes through the methods."""

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self.running: dict[str, Request] = {}
        self.ended: OrderedDict[str, Stage] = OrderedDict()
        self._remembered = remembered
        self._lock = threading.Lock()

    def begin(self, request: Request) -> None:
        with self._lock:
            self.running[request.id] = request

    def forget(self, request: Request) -> None:
        """The attempt was broken off; a delivery that comes now is to be run."""
        with self._lock:
            self._leave(request)

    def sweep(self) -> None:
        """After a lost connection: forget what Celery has dropped."""
        with self._lock:
            for request in [*self.running.values()]:
                if not request.is_certain and not request.is_attached:
                    self._leave(request)

    def settle(self, request: Request, *, ended: bool) -> Delivery:
        """The attempt is over; returns the delivery that it has by now."""
        with self._lock:
            self._leave(request)
            if ended:
                before = self.ended.pop(request.id, request.stage)
                self.ended[request.id] = max(before, request.stage)
                while len(self.ended) > self._remembered:
                    self.ended.popitem(last=False)
            return request.delivery

    def meet(self, job_id: str, stage: Stage, delivery: Delivery) -> Known:
        """A message that came again."""
        with self._lock:
            ended = self.ended.get(job_id)
            if ended is not None and stage <= ended:
                return Known.ENDED
            request = self.running.get(job_id)
            if request is None or request.stage < stage:
                return Known.NOT
            if request.stage > stage:
                return Known.ENDED
            if request.is_attached:
                return Known.TWICE
            if not request.is_certain:
                return Known.NOT
            request.delivery = delivery
            return Known.TAKEN_OVER

    def _leave(self, request: Request) -> None:
        if self.running.get(request.id) is request:
            del self.running[request.id]
