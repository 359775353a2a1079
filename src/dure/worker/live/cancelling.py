"""How a job ends that was cancelled while it runs where nothing can be ended from outside: in a thread.

The request that is told of it keeps the job's id here. What the task tells next raises TaskCancelled in the task's own
code, which passes through it as KeyboardInterrupt does: no `except Exception` and no retry holds it up, `finally` and
`with` let go of what they hold. The job is REVOKED then, as in a pool that can kill. A task that tells nothing runs to
its end.
"""

from __future__ import annotations

_asked: set[str] = set()


class TaskCancelled(BaseException):
    """Raised in a task by what it tells, after its job was cancelled. Let it pass; there is nobody to tell more to."""


def ask(job_id: str) -> None:
    _asked.add(job_id)


def forget(job_id: str) -> None:
    _asked.discard(job_id)


def check(job_id: str) -> None:
    """Raises TaskCancelled."""
    if _asked and job_id in _asked:
        raise TaskCancelled(f"job {job_id} was cancelled")
