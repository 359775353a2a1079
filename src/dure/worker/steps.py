"""Our places in the worker's start and stop, as Celery's bootsteps."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.bootsteps import CLOSE, TERMINATE  # type: ignore[attr-defined]
from celery.worker.consumer.tasks import Tasks

from dure.settings import Settings
from dure.worker import log
from dure.worker.dead_letters import DeadLetters
from dure.worker.memory import Memory
from dure.worker.outbox import Outbox
from dure.worker.trace import wrap_tracers

_DRAIN_SECONDS = 10.0


def attempts_step(settings: Settings, dead_letters: DeadLetters, memory: Memory) -> type[bootsteps.StartStopStep]:
    """The consumer gets what it lacks, tracers are wrapped whenever it made new ones, and at the end no
    acknowledgement is left behind.

    Tasks may finish until the pool is joined, and their acknowledgements come out of the outbox a little later.
    With an event loop they are run by the loop's end, without one by the outbox itself: each time the outbox must
    be empty before.
    """

    outbox = dead_letters.outbox

    class Attempts(bootsteps.StartStopStep):
        name = "dure.worker.Attempts"
        requires = (Tasks,)

        def __init__(self, consumer: Any, **options: Any) -> None:
            super().__init__(consumer, **options)
            consumer.dead_letters = dead_letters

        def start(self, consumer: Any) -> None:
            memory.sweep()
            wrap_tracers(consumer.app, settings.result_limit)
            if consumer.hub is not None:
                consumer.hub.on_close.add(lambda hub: _drain(outbox) if _ending(consumer) else None)

        def shutdown(self, consumer: Any) -> None:
            _drain(outbox)

    return Attempts


def _ending(consumer: Any) -> bool:
    """The loop is closed for good, not reset after a lost connection."""
    return bool(consumer.controller.blueprint.state in (CLOSE, TERMINATE))


def _drain(outbox: Outbox) -> None:
    if not outbox.drain(_DRAIN_SECONDS):
        log.events_left(_DRAIN_SECONDS)
