"""The Celery application: can it be loaded, and does it ask for what loses jobs?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dure.cli.checks.finding import Finding, ok, problem_of, warning
from dure.errors import ConfigurationError
from dure.settings import BROKERS, Settings
from dure.url import redact, scheme

if TYPE_CHECKING:
    from celery import Celery


def check_application(target: str, settings: Settings | None) -> Iterator[Finding]:
    """What an application leaves to Celery's defaults is no risk: `dure worker` chooses the safe value."""
    from dure.worker.load import load

    try:
        celery = load(target)
    except ConfigurationError as exc:
        yield from (problem_of(found, "app ") for found in exc.problems)
        return
    place = f"app {target}"
    risks = list(_risks(place, celery))
    if not celery.conf.value_set_for("task_acks_late"):
        celery.conf.task_acks_late = True  # as `dure worker` does, before the tasks take it over
    celery.loader.import_default_modules()  # what the worker does: autodiscovered tasks among them
    names = [name for name in celery.tasks if not name.startswith("celery.")]
    yield ok(place, f"loads, with {len(names)} {'task' if len(names) == 1 else 'tasks'}")
    yield from risks
    yield from _early_acks(place, celery, names)
    if settings is not None:
        yield from _urls(place, celery, settings)


def _early_acks(place: str, celery: Celery, names: Sequence[str]) -> Iterator[Finding]:
    early = sorted(name for name in names if not celery.tasks[name].acks_late)
    if early and _says(celery, "task_acks_late") is not False:
        yield warning(
            place,
            f"acks_late is off for {', '.join(early)}: a worker that dies loses them",
            "set task_acks_late in the application, or acks_late on the tasks, unless they must not run twice",
        )


_RISKY: Mapping[str, tuple[Any, str, str]] = {
    "task_acks_late": (False, "is off: a worker that dies loses what it runs", "leave it to Dure, or on"),
    "task_reject_on_worker_lost": (False, "is off: a killed process loses its job", "leave it to Dure, or on"),
    "worker_send_task_events": (False, "is off: its jobs have no history", "leave it to Dure, or on"),
    "task_serializer": ("pickle", "is pickle, which Dure cannot read", "use json"),
    "result_serializer": ("pickle", "is pickle, which Dure cannot read", "use json"),
    "task_always_eager": (True, "is on: its own calls never reach a broker", "turn it off outside tests"),
}


def _risks(place: str, celery: Celery) -> Iterator[Finding]:
    for name, (risky, message, remedy) in _RISKY.items():
        if _says(celery, name) == risky:
            yield warning(place, f"{name} {message}", remedy)
    if "pickle" in " ".join(map(str, _says(celery, "accept_content") or ())):
        yield warning(place, "accept_content has pickle: who reaches the broker runs code", "accept json only")
    visibility = (celery.conf.broker_transport_options or {}).get("visibility_timeout")
    if visibility is not None:
        yield warning(
            place,
            f"visibility_timeout is {visibility} s: where the broker has one, a job that runs longer runs twice",
            "use RabbitMQ, which has none",
        )


def _urls(place: str, celery: Celery, settings: Settings) -> Iterator[Finding]:
    own = _says(celery, "broker_url")
    if not own or settings.broker_url is not None:
        return
    if scheme(own) in BROKERS:
        yield warning(
            place,
            f"its broker is {redact(own)}, but Dure's settings name none: `dure worker` would use the first, "
            "`dure serve` the embedded one",
            "set DURE_BROKER_URL for both (`dure up` sets the application's aside)",
        )
    else:
        yield warning(
            place,
            f"its broker is {redact(own)}, which Dure does not speak",
            "move to RabbitMQ with DURE_BROKER_URL; `dure up` uses the embedded broker instead",
        )


def _says(celery: Celery, name: str) -> Any:
    """The application's own word; None where it left the setting to its default."""
    return celery.conf.get(name) if celery.conf.value_set_for(name) else None
