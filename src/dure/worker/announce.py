"""The worker tells what it can run: at its start, and when it is asked (`dure_announce`)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import islice
from typing import Any

from celery import Celery
from celery import Task as CeleryTask
from celery.signals import worker_ready
from celery.worker.control import control_command
from celery.worker.state import SOFTWARE_INFO

import dure
from dure.task import Task
from dure.worker import log
from dure.worker.aio import names
from dure.worker.aio.bodies import is_async
from dure.worker.schema import signature_of
from dure.worker.task_options import runs_in_process

_TASKS_PER_EVENT = 100
_SOFTWARE = {"sw_ident": "dure", "sw_ver": dure.__version__}


def describe(app: Celery) -> list[Task]:
    """The application's own tasks, by name."""
    return [_describe(app, task) for name, task in sorted(app.tasks.items()) if not name.startswith("celery.")]


def announce(consumer: Any) -> int:
    """Send every task in `worker-tasks` events; returns how many tasks."""
    tasks = describe(consumer.app)
    worker = {
        "pool": _pool_name(consumer.pool),
        "concurrency": consumer.pool.num_processes,
        "queues": sorted(consumer.app.amqp.queues.consume_from),
        **_SOFTWARE,
    }
    for batch in _batches(tasks):
        consumer.event_dispatcher.send("worker-tasks", tasks=batch, **worker)
    return len(tasks)


def install() -> None:
    """Announce in this process: a worker that was not adopted never hears of it.

    Heartbeats say whose they are as well, so that a gateway with a new ledger knows whom to ask.
    """
    SOFTWARE_INFO.update(_SOFTWARE)
    worker_ready.connect(_on_ready, dispatch_uid="dure.worker.announce")
    control_command(name="dure_announce")(_on_command)


def _on_ready(sender: Any = None, **_: Any) -> None:
    announce(sender)
    _warn_of_limits(sender)


def _warn_of_limits(consumer: Any) -> None:
    """Only processes can end a sync task, and our own pool a coroutine; Celery passes a limit over without a word."""
    pool, conf = _pool_name(consumer.pool), consumer.app.conf
    limited = [
        name
        for name, task in consumer.app.tasks.items()
        if (task.time_limit or task.soft_time_limit or conf.task_time_limit or conf.task_soft_time_limit)
        and not (pool == names.POOL and (is_async(task) or runs_in_process(consumer.app, task)))
    ]
    if limited and pool != "prefork":
        log.limits_do_nothing(pool, [name for name in limited if not name.startswith("celery.")])


def _on_command(state: Any, **_: Any) -> dict[str, int]:
    return {"tasks": announce(state.consumer)}


def _batches(tasks: list[Task]) -> Iterator[list[Task]]:
    rest = iter(tasks)
    yield list(islice(rest, _TASKS_PER_EVENT))
    while batch := list(islice(rest, _TASKS_PER_EVENT)):
        yield batch


def _describe(app: Celery, task: CeleryTask[..., Any]) -> Task:
    known: dict[str, Any] = {"name": task.name, "doc": _doc(task), "queue": _queue(app, task)}
    try:
        signature = signature_of(task.run)
    except Exception as exc:
        log.schema_unknown(task.name, exc)
        signature = None
    if signature is None:
        return Task(**known)
    return Task(
        **known,
        arguments=signature.arguments,
        result=signature.result,
        positional=signature.positional,
        variadic=signature.variadic,
    )


def _doc(task: CeleryTask[..., Any]) -> str | None:
    """Not `task.__doc__`: a class without a docstring would show that of Celery's Task."""
    doc = type(task).__dict__.get("__doc__") or (task.run.__doc__ if type(task).run is not CeleryTask.run else None)
    return inspect.cleandoc(doc) if doc else None


def _queue(app: Celery, task: Any) -> str | None:
    """Where the application's own router sends the task."""
    try:
        route = app.amqp.router.route(dict(task._get_exec_options()), task.name, (), {}, task)
    except Exception:
        return None
    queue = route.get("queue")
    return str(getattr(queue, "name", queue)) if queue else route.get("routing_key")


def _pool_name(pool: Any) -> str:
    """As the `--pool` option calls it."""
    module = type(pool).__module__.rpartition(".")[2]
    return "threads" if module == "thread" else module
