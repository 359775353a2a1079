"""Run Celery's own worker, with every option that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from amqp.exceptions import AccessRefused, NotAllowed
from celery import Celery
from celery.bin.celery import celery as celery_command
from celery.signals import worker_init

from dure.errors import ConfigurationError, Problem
from dure.settings import Settings
from dure.worker import options, task_options
from dure.worker.aio import bodies, names


def run(app: Celery, settings: Settings, argv: Sequence[str]) -> int:
    """Run `celery worker` with `argv` on an adopted application; returns its exit code when it ends.

    Where neither `argv` nor the application says otherwise: the asyncio pool, with slots for many
    coroutines if there are `async def` tasks, and task events.
    """
    _choose_pool(app, argv)
    _knock(app)
    celery_command.params[0].default = app
    try:
        # Not `app.start`: it drops the exit code of a worker that failed.
        return celery_command.main(args=["worker", *argv], standalone_mode=False) or 0
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        return 1
    finally:
        celery_command.params[0].default = None


def _knock(app: Celery) -> None:
    """A broker that refuses us will not think better of it; one that is away, Celery waits for.

    Raises ConfigurationError where user, password or vhost are wrong.
    """
    connection: Any = app.connection_for_write()
    try:
        connection.connect()
    except (AccessRefused, NotAllowed) as exc:
        place, remedy = "broker_url", "check user, password and vhost in the broker's URL"
        raise ConfigurationError([Problem(place, f"the broker refuses the connection: {exc}", remedy)]) from exc
    except connection.connection_errors:
        return
    finally:
        connection.release()


def _choose_pool(app: Celery, argv: Sequence[str]) -> None:
    # Celery takes `--pool prefork` for its default and lets the configuration win, so we stay out of it.
    names.register()
    given = options.given(argv)
    if "pool_cls" not in given and not app.conf.value_set_for("worker_pool"):
        app.conf.worker_pool = names.POOL
    counted = "concurrency" in given or app.conf.value_set_for("worker_concurrency")
    if given.get("pool_cls", app.conf.worker_pool) == names.POOL and not counted:  # said once all tasks are known
        worker_init.connect(_choose_concurrency, dispatch_uid="dure.worker.concurrency")


def _choose_concurrency(sender: Any, **_: Any) -> None:
    several = names.COROUTINES if bodies.has_async(sender.app) else names.threads()
    sender.concurrency = several + task_options.processes(sender.app)
