"""The worker's log lines, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from dure.url import redact

_log = structlog.get_logger("dure.worker")


def adopted(app: str, changed: Mapping[str, Any]) -> None:
    _log.info("application adopted", app=app)
    shown = {name: redact(value) if name.endswith(("_url", "_backend")) else value for name, value in changed.items()}
    _log.debug("set where the application set nothing", **shown)


def bound_early(tasks: Sequence[str]) -> None:
    _log.warning(
        "tasks were bound before the worker adopted the application and keep Celery's own settings; "
        "set task_acks_late in the application's configuration",
        tasks=list(tasks),
    )


def limits_do_nothing(pool: str, tasks: Sequence[str]) -> None:
    _log.warning("time limits do nothing in this pool; use --pool prefork", pool=pool, tasks=list(tasks))


def queue_kept(queue: str, reason: str) -> None:
    _log.warning("queue exists with other arguments and is consumed as it is", queue=queue, reason=reason)


def event_queue_kept(queue: str, reason: str) -> None:
    _log.warning("event queue exists with other arguments and is used as it is", queue=queue, reason=reason)


def broker_away(exc: BaseException, pause: float) -> None:
    _log.warning("broker cannot be reached; will try again", error=str(exc), seconds=pause)


def events_wait(exc: BaseException) -> None:
    _log.warning("events wait for the broker", error=f"{type(exc).__name__}: {exc}")


def event_dropped(reason: str) -> None:
    _log.error("event dropped", reason=reason)


def events_left(seconds: float) -> None:
    _log.warning("events were not confirmed before the worker ended; their jobs run again", seconds=seconds)


def acknowledgement_failed(exc: BaseException) -> None:
    _log.error("acknowledgement failed; the broker will deliver the message again", error=repr(exc))


def schema_unknown(task: str, exc: BaseException) -> None:
    _log.warning("task announced without a schema", task=task, error=f"{type(exc).__name__}: {exc}")
