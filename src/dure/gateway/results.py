"""How a job's end is answered: 200 done, 202 not yet, 500 failed."""

from __future__ import annotations

import math
import time

from fastapi import Response

from dure.errors import JobFailed
from dure.gateway.problems import answer
from dure.gateway.render import json_response
from dure.job import Job, State


def result_response(job: Job, done: Response | None = None) -> Response:
    """`done` is the answer for a job that succeeded; by default its id, state and result."""
    if not job.state.final:
        pause = str(_retry_after(job))
        return json_response({"id": job.id, "state": job.state}, 202, {"Retry-After": pause})
    if job.state is not State.SUCCESS:
        return answer(JobFailed(job))
    return done or json_response(
        {"id": job.id, "state": job.state, "result": job.result, "result_repr": job.result_repr}
    )


def _retry_after(job: Job) -> int:
    """Seconds: one, or until a scheduled job is due."""
    if job.state is State.SCHEDULED and job.eta is not None:
        return max(1, math.ceil(job.eta - time.time()))
    return 1
