"""How the pool gets the worker's loop: one step in Celery's own order, added when a worker with this pool begins.

    Timer ─▶ Hub ─▶ Loop (ours) ─▶ Pool ─▶ … ─▶ Consumer

Celery's Hub takes the current event loop of kombu's if there is one. Steps are all made before the first is included,
so ours puts the hub there when it is made; and it gives the worker the hub's timer in place of kombu's.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.concurrency import get_implementation
from celery.worker.components import Hub
from kombu.asynchronous import set_event_loop
from kombu.utils.imports import symbol_by_name

from dure.worker.aio import backend, bodies, bridge, control, home, recycling
from dure.worker.aio.consumer import on_loop
from dure.worker.aio.hub import LoopHub
from dure.worker.aio.outbox import GatheringOutbox
from dure.worker.aio.request import stoppable
from dure.worker.outbox import Outbox


class Loop(bootsteps.Step):
    """Timer, hub and consumer on one asyncio loop."""

    name = "dure.worker.Loop"
    requires = (Hub,)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.hub: LoopHub | None = None
        if _is_ours(worker) and worker.use_eventloop:
            self.hub = LoopHub(home.new_loop())
            set_event_loop(self.hub)
            worker.consumer_cls = on_loop(symbol_by_name(worker.consumer_cls))

    def include_if(self, worker: Any) -> bool:
        return _is_ours(worker)

    def create(self, worker: Any) -> None:
        if self.hub is not None:
            worker.timer = self.hub.timer
            outbox = getattr(worker.app.events.dispatcher_cls, "outbox", None)
            if isinstance(outbox, Outbox):  # there is none where Dure has not adopted the application
                GatheringOutbox.of(outbox, self.hub)
        for task in worker.app.tasks.values():
            task.Request = stoppable(symbol_by_name(task.Request))


def on_worker_init(sender: Any = None, **_: Any) -> None:
    """A worker begins in this process; it may have another pool."""
    if not _is_ours(sender):
        return
    app = sender.app
    app.finalize()
    app.steps["worker"].add(Loop)
    bodies.wrap_all(app)
    backend.install(app)
    control.install()
    recycling.install(sender)
    _publish_aside(app)


def _publish_aside(app: Any) -> None:
    """Callbacks and the next of a chain, which a tracer sends, wait for the broker."""
    publish = app.amqp._retry_publish
    app.amqp._retry_publish = lambda *args, **kwargs: bridge.aside(publish, *args, **kwargs)


def _is_ours(worker: Any) -> bool:
    from dure.worker.aio.asyncio import TaskPool

    pool = get_implementation(worker.pool_cls)
    return isinstance(pool, type) and issubclass(pool, TaskPool)
