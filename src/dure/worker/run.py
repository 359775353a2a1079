"""Run Celery's own worker, with every option that it has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click
from amqp.exceptions import AccessRefused, NotAllowed
from celery import Celery
from celery.bin.celery import celery as celery_command
from celery.bin.worker import worker as worker_command

from dure.errors import ConfigurationError, Problem
from dure.settings import Settings
from dure.worker.aio import names

_COROUTINES = 100  # at once; as many messages a worker holds


def run(app: Celery, settings: Settings, argv: Sequence[str]) -> int:
    """Run `celery worker` with `argv` on an adopted application; returns its exit code when it ends.

    Where neither `argv` nor the application says otherwise: the threads pool, a few threads more than processors,
    task events.
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
    given = _options(argv)
    if "pool_cls" not in given and not app.conf.value_set_for("worker_pool"):
        app.conf.worker_pool = "threads"
    if (
        app.conf.worker_pool == "threads"
        and given.get("pool_cls", "threads") == "threads"
        and "concurrency" not in given
        and not app.conf.value_set_for("worker_concurrency")
    ):
        app.conf.worker_concurrency = min(32, _processors() + 4)
    if (
        given.get("pool_cls", app.conf.worker_pool) == names.POOL
        and "concurrency" not in given
        and not app.conf.value_set_for("worker_concurrency")
    ):
        app.conf.worker_concurrency = _COROUTINES


def _options(argv: Sequence[str]) -> dict[str, object]:
    """What `argv` sets; Celery will complain of what it does not know."""
    context = click.Context(worker_command, ignore_unknown_options=True, allow_extra_args=True)
    try:
        given, _, _ = worker_command.make_parser(context).parse_args(list(argv))
    except click.ClickException:
        return {}
    return {{"pool": "pool_cls"}.get(name, name): value for name, value in given.items()}


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
