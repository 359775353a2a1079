"""`self.update_state(state="PROGRESS", meta=…)` of plain Celery, understood as progress.

Celery keeps it in the result backend, where there is one; that goes on. Any state of the application's own is
understood, for there is no agreed name; of `meta`, these are known:

    current, total                     numbers
    message, or status, or description text
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

from celery import Celery
from celery.states import ALL_STATES

from dure.worker import log
from dure.worker.live.attempt import Attempt, current

_PROGRESS = "PROGRESS"
_MESSAGES = ("message", "status", "description")


def wrap(app: Celery) -> None:
    """Listen to every registered task, once."""
    task: Any
    for task in app.tasks.values():
        if not hasattr(task.update_state, "__dure__"):
            task.update_state = _wrapped(task.update_state)


def _wrapped(update_state: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(update_state)
    def update(task_id: str | None = None, state: str | None = None, meta: Any = None, **options: Any) -> Any:
        here = current.get()
        if (
            isinstance(here, Attempt)
            and state is not None
            and state not in ALL_STATES
            and task_id in (None, here.job_id)
        ):
            _tell(here, state, meta)
        return update_state(task_id, state, meta, **options)

    update.__dure__ = True  # type: ignore[attr-defined]
    return update


def _tell(attempt: Attempt, state: str, meta: Any) -> None:
    """The code knows nothing of us, so nothing is raised."""
    try:
        attempt.progress(*understood(state, meta))
    except Exception as exc:
        log.state_not_told(attempt.job_id, exc)


def understood(state: str, meta: Any) -> tuple[float | None, float | None, str | None, dict[str, Any]]:
    """`current`, `total`, `message`, and what else is told."""
    if isinstance(meta, dict):
        more = {str(name): value for name, value in meta.items()}
    else:
        more = {} if meta is None else {"meta": meta}
    current, total = _number(more.pop("current", None)), _number(more.pop("total", None))
    message = next((text for name in _MESSAGES if isinstance(text := more.get(name), str)), None)
    for name in _MESSAGES:
        if message is not None and more.get(name) == message:
            del more[name]
            break
    more.pop("message", None)
    if state != _PROGRESS:
        more.setdefault("state", state)
    return current, total, message, more


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None
