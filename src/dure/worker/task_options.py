"""What a task, or the application's configuration, says of where it runs.

    @app.task(dure={"pool": "process"})          the task itself, which goes first
    app.conf.dure_process_tasks = ["shop.*"]     names or patterns
    app.conf.dure_processes = 4                  how many processes

Only the asyncio pool acts on it; what is wrong is told at the start of a worker with any pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from celery import Celery, bootsteps

from dure.errors import ConfigurationError, Problem
from dure.worker import log
from dure.worker.aio import names

PROCESSES_SETTING = "dure_processes"

_TASKS_SETTING = "dure_process_tasks"
_PROCESS, _THREAD = "process", "thread"
_OPTIONS = {"pool": (_PROCESS, _THREAD)}
_REMEDY = 'write dure={"pool": "process"}, or "thread"'


class TaskOptions(bootsteps.Step):
    """Checked before the pool is made. Celery would swallow what a handler of a signal raises."""

    name = "dure.worker.TaskOptions"

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        check(worker.app)

    def create(self, worker: Any) -> None:
        pass


def check(app: Celery) -> None:
    """Raises ConfigurationError with every problem found."""
    app.finalize()
    found = [*_problems_of_settings(app), *_problems_of_tasks(app)]
    if found:
        raise ConfigurationError(found)
    unknown = [pattern for pattern in _patterns(app) if not any(fnmatchcase(name, pattern) for name in app.tasks)]
    if unknown:
        log.patterns_without_tasks(_TASKS_SETTING, unknown)


def runs_in_process(app: Celery, task: Any) -> bool:
    pool = (getattr(task, "dure", None) or {}).get("pool")
    if pool is not None:
        return bool(pool == _PROCESS)
    return any(fnmatchcase(task.name, pattern) for pattern in _patterns(app))


def processes(app: Celery) -> int:
    """As many as the configuration says, or one for each processor; 0 where no task runs in one."""
    if not any(runs_in_process(app, task) for task in app.tasks.values()):
        return 0
    return int(app.conf.get(PROCESSES_SETTING) or names.processors())


def _patterns(app: Celery) -> Sequence[str]:
    patterns = app.conf.get(_TASKS_SETTING) or ()
    return (patterns,) if isinstance(patterns, str) else patterns


def _problems_of_settings(app: Celery) -> Iterator[Problem]:
    patterns = app.conf.get(_TASKS_SETTING) or ()
    if not isinstance(patterns, (str, list, tuple, set, frozenset)) or not all(isinstance(p, str) for p in patterns):
        yield Problem(
            _TASKS_SETTING, f"{patterns!r} is no list of names", 'write names or patterns, such as ["shop.*"]'
        )
    count = app.conf.get(PROCESSES_SETTING)
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        yield Problem(PROCESSES_SETTING, f"{count!r} is no number of processes", "write a whole number, 1 or more")


def _problems_of_tasks(app: Celery) -> Iterator[Problem]:
    for name, task in sorted(app.tasks.items()):
        place, options = f"task {name}", getattr(task, "dure", None)
        if options is None:
            continue
        if not isinstance(options, dict):
            yield Problem(place, f"dure={options!r} is no dictionary", _REMEDY)
            continue
        for option, value in options.items():
            if option not in _OPTIONS:
                yield Problem(place, f"dure={options!r}: there is no option {option!r}", _REMEDY)
            elif value not in _OPTIONS[option]:
                yield Problem(place, f"dure={options!r}: {option} cannot be {value!r}", _REMEDY)
