"""The application of Celery's integration suite, for a worker process of its own.

With SUITE_COROUTINES=1 each task is an `async def` whose body runs in a thread: what the suite's tasks do (sleep, wait
for results) would block a loop, and what is tested is the way around the body.
"""

import asyncio
import json
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from celery import Celery
from t.integration.tasks import ClassBasedAutoRetryTask

app = Celery("suite", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BACKEND"])
app.conf.update(result_extended=True, task_create_missing_queues=False, worker_pool=os.environ.get("SUITE_POOL"))
app.conf.broker_connection_retry_on_startup = True
app.conf.update(json.loads(os.environ.get("SUITE_CONFIGURATION", "{}")))
app.register_task(ClassBasedAutoRetryTask)
app.loader.import_task_module("t.integration.tasks")


def _coroutine(body: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(body)
    async def run(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(body, *args, **kwargs)

    return run


if os.environ.get("SUITE_COROUTINES"):
    app.finalize()
    for task in app.tasks.values():
        if not task.name.startswith("celery."):
            place = "_orig_run" if hasattr(task, "_orig_run") else "run"
            setattr(task, place, _coroutine(getattr(task, place)))
