"""Health, watchdog and the watch over the loop, put into a worker before it begins."""

from __future__ import annotations

from typing import Any

from celery import Celery, bootsteps
from celery.signals import worker_init, worker_shutdown
from celery.worker.consumer.tasks import Tasks

from dure import probe
from dure.settings import Settings
from dure.worker.health.health import Health
from dure.worker.health.telling import Server, Writer
from dure.worker.health.watchdog import watchdog_step
from dure.worker.memory import Memory


def install(app: Celery, settings: Settings, memory: Memory) -> Health:
    """Raises ConfigurationError where health cannot be told at the place that is set."""
    health = Health(memory)
    app.steps["consumer"].add(watchdog_step(health))
    app.steps["consumer"].add(_loop_watch_step(health, settings.loop_block_limit))
    if settings.worker_health is not None:
        _tell(health, probe.parse(settings.worker_health))

    def know(sender: Any, **_: Any) -> None:
        health.worker = sender

    worker_init.connect(know, weak=False)
    return health


def _tell(health: Health, place: probe.File | probe.Port) -> None:
    if isinstance(place, probe.Port):
        Server(place, health.tell).start()
        return
    writer = Writer(place, health.tell)

    def begin(sender: Any, **_: Any) -> None:
        writer.start(sender.hostname)

    def end(**_: Any) -> None:
        writer.stop()

    worker_init.connect(begin, weak=False)
    worker_shutdown.connect(end, weak=False)


def _loop_watch_step(health: Health, limit: float) -> type[bootsteps.StartStopStep]:
    class Watching(bootsteps.StartStopStep):
        """Once, when the pool has its loop."""

        name = "dure.worker.LoopWatch"
        requires = (Tasks,)
        is_started = False

        def start(self, consumer: Any) -> None:
            from dure.worker.aio.asyncio import TaskPool
            from dure.worker.health.blocked import LoopWatch

            if isinstance(consumer.pool, TaskPool) and not self.is_started:
                self.is_started = True
                LoopWatch(consumer.pool, health, limit).start()

    return Watching
