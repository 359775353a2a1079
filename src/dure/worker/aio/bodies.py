"""The bodies of `async def` tasks, made callable as Celery calls them: they return when the coroutine has ended.

in this worker's pool               the attempt's greenlet steps aside, and the loop runs the coroutine
everywhere else                     the calling thread waits, and one long-lived loop of the process runs it:
                                    stock pools, `task.apply()`, `task_always_eager`
called directly, `await add(1, 2)`  the coroutine itself is returned, as from any `async def`
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from celery import Celery

from dure.worker.aio import bridge, errbacks, home, stack
from dure.worker.aio.attempt import Attempt

_MARK = "__dure_async__"


def install(app: Celery) -> None:
    """Make the `async def` tasks of an application run wherever Celery runs tasks.

    Dure's workers do it by themselves. Call it where the application is made, so that its tests can run such tasks by
    `apply` or eagerly, and stock Celery workers by `async def`.
    """
    if app.finalized:  # type: ignore[attr-defined]
        wrap_all(app)
    else:
        app.on_after_finalize.connect(lambda **_: wrap_all(app), weak=False)


def wrap_all(app: Celery) -> None:
    for task in app.tasks.values():
        wrap(task)


def wrap(task: Any) -> None:
    """Once; a task that is no `async def` stays as it is."""
    # Celery's autoretry has put itself around the body, and must see its exceptions.
    place = "_orig_run" if hasattr(task, "_orig_run") else "run"
    body = getattr(task, place)
    if inspect.iscoroutinefunction(body):
        stack.install(task)
        errbacks.install()
        setattr(task, place, _waiting(task, body))


def is_async(task: Any) -> bool:
    body = getattr(task, "_orig_run", task.run)
    while body is not None:
        if hasattr(body, _MARK):
            return True
        body = getattr(body, "__wrapped__", None)
    return False


def has_async(app: Celery) -> bool:
    wrap_all(app)
    return any(map(is_async, app.tasks.values()))


def _waiting(task: Any, body: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    @wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        coroutine = body(*args, **kwargs)
        if task.request.called_directly:
            return errbacks.run(coroutine) if errbacks.is_one() else coroutine
        attempt = bridge.owner()
        if isinstance(attempt, Attempt):
            return attempt.wait_for(coroutine)
        return home.run(coroutine)

    setattr(run, _MARK, True)
    return run
