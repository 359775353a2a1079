"""Make a loaded Celery application safe and visible in this process, without a change to its code.

What the application set itself stays. What it left to Celery's defaults, which favour speed over safety, becomes:
acknowledged when done, redelivered when a worker is lost, one message per free slot, events on, JSON only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.events.event import get_exchange
from celery.signals import celeryd_after_setup, worker_init, worker_process_init
from celery.worker.request import Request as CeleryRequest

import dure.broker  # noqa: F401  teaches kombu dure://
from dure.settings import Settings
from dure.url import redact, scheme
from dure.worker import announce, body, dispatcher, log, queues
from dure.worker.aio import bodies
from dure.worker.dead_letters import DeadLetters
from dure.worker.health.install import install as install_health
from dure.worker.live import attempts
from dure.worker.memory import Memory
from dure.worker.outbox import Outbox
from dure.worker.post import Post
from dure.worker.request import bound
from dure.worker.revocations import Revocations
from dure.worker.steps import attempts_step
from dure.worker.strategy import Strategy
from dure.worker.task_options import TaskOptions
from dure.worker.trace import wrap_tracers

SAFE: Mapping[str, Any] = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "worker_send_task_events": True,
    "task_send_sent_event": True,
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    "broker_connection_retry_on_startup": True,
    # A result backend that is away is waited for: what could not be stored is not acknowledged.
    "result_backend_always_retry": True,
    "result_backend_max_sleep_between_retries_ms": 1000,
    # RabbitMQ closes the channel of a job that runs for very long; Celery would end the worker.
    "broker_channel_error_retry": True,
    "worker_consumer": "dure.worker.consumer:Consumer",
}

_STOCK_REQUESTS = (CeleryRequest, "celery.worker.request:Request")
_STOCK_STRATEGY = "celery.worker.strategy:default"
_URL_VARIABLES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


def adopt(
    app: Celery,
    settings: Settings,
    *,
    broker_url: str | None = None,
    result_backend: str | None = None,
) -> dict[str, Any]:
    """Change the application for a worker in this process; returns the settings that were changed.

    `broker_url` and `result_backend` go before the application's own, and before CELERY_* in the environment.
    """
    early = _bound_early(app)
    changed = _point_to(app, broker_url, result_backend) | _make_safe(app)
    _install(app, settings)
    if early and "task_acks_late" in changed:
        log.bound_early(early)
    log.adopted(str(app.main), {name: _shown(value) for name, value in changed.items()})
    return changed


def _point_to(app: Celery, broker_url: str | None, result_backend: str | None) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if broker_url is not None:
        for variable in _URL_VARIABLES:
            os.environ.pop(variable, None)
        changed |= dict.fromkeys(("broker_url", "broker_read_url", "broker_write_url"), broker_url)
    if result_backend is not None:
        os.environ.pop("CELERY_RESULT_BACKEND", None)
        changed["result_backend"] = result_backend
    loader: Any = app.loader
    loader.override_backends = {**loader.override_backends, "dure": "dure.worker.backend:Backend"}
    app.conf.update(changed)
    return changed


def _make_safe(app: Celery) -> dict[str, Any]:
    changed = {name: value for name, value in SAFE.items() if not app.conf.value_set_for(name)}
    options = dict(app.conf.broker_transport_options or {})
    if scheme(app.conf.broker_write_url or "amqp://") in ("amqp", "amqps", "pyamqp"):
        changed["broker_transport_options"] = {"confirm_publish": True} | options
    app.conf.update(changed)
    return changed


def _bound_early(app: Celery) -> list[str]:
    """Tasks that took their settings over from the configuration before we could change it."""
    registry: Any = app._tasks  # type: ignore[attr-defined]
    return sorted(name for name in dict.keys(registry) if not name.startswith("celery."))


def _install(app: Celery, settings: Settings) -> None:
    def connect() -> Any:
        connection = app.connection_for_write()
        connection.ensure_connection(max_retries=1)
        return connection

    outbox = Outbox(connect, lambda connection: get_exchange(connection, name=app.conf.event_exchange))
    events: Any = app.events
    events.dispatcher_cls = dispatcher.bound(outbox)
    events.__dict__.pop("Dispatcher", None)
    dead_letters = DeadLetters(app, settings, outbox, Post(connect))
    memory = Memory()
    requests, strategy = bound(memory, dead_letters), Strategy(settings, memory, dead_letters)
    app.steps["worker"].add(TaskOptions)
    app.steps["consumer"].add(attempts_step(settings, dead_letters, memory))
    app.steps["consumer"].add(Revocations)
    install_health(app, settings, memory)
    announce.install()
    attempts.install(settings)

    def prepare_tasks(**_: Any) -> None:
        app.finalize()
        task: Any
        for task in app.tasks.values():
            if task.Request in _STOCK_REQUESTS:
                task.Request = requests
            if task.Strategy == _STOCK_STRATEGY:
                task.Strategy = strategy
            bodies.wrap(task)
            body.wrap(task, settings.queue_type)

    # After the consumer was made: Celery would start its delayed delivery, 28 more queues, for any quorum queue it
    # sees by then, and it can't use that for direct exchanges. Before the pool starts: its processes publish too.
    def prepare_queues(**_: Any) -> None:
        queues.prepare(app, settings)

    def prepare_child(**_: Any) -> None:
        wrap_tracers(app, settings.result_limit)

    worker_init.connect(prepare_tasks, weak=False)
    celeryd_after_setup.connect(prepare_queues, weak=False)
    worker_process_init.connect(prepare_child, weak=False)


def _shown(value: Any) -> Any:
    return redact(value) if isinstance(value, str) and "://" in value else value
