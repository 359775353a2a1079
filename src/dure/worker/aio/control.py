"""Remote control's `revoke`, which also ends a coroutine that runs: nothing is lost by ending it early."""

from __future__ import annotations

from typing import Any

from celery.utils.functional import maybe_list
from celery.worker import state as worker_state
from celery.worker.control import Panel

from dure.worker.aio.attempt import Attempt


def install() -> None:
    stock = Panel.data["revoke"]
    if hasattr(stock, "__dure__"):
        return

    def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **kwargs: Any) -> Any:
        ids = maybe_list(task_id) or []
        answer = stock(state, task_id, terminate=terminate, signal=signal, **kwargs)
        for job_id in () if terminate else ids:
            request: Any = worker_state.requests.get(job_id)
            attempt = request and request._apply_result and request._apply_result()
            if isinstance(attempt, Attempt) and attempt.is_started and attempt.stoppable:
                request.terminate(state.consumer.pool, signal=signal or "TERM")
        return answer

    revoke.__dure__ = True  # type: ignore[attr-defined]
    revoke.__doc__ = stock.__doc__
    Panel.data["revoke"] = revoke
