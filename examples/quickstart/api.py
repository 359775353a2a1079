"""A web application that hands long work to Celery through Dure, with Dure's own routes under /dure."""

import secrets
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel

from dure import Job, ResultTimeout, State, UnknownJob, UnknownTask
from dure.contrib.fastapi import DureDep, lifespan, router
from examples.quickstart.tasks import add_task, multi_task

app = FastAPI(title="Quickstart", lifespan=lifespan())
app.include_router(router(), prefix="/dure")

SUM_TASK = "examples.quickstart.tasks.sum_multiply_task"
SUM_QUEUE = "sum-queue"
PATIENCE_SECONDS = 5.0


class Submitted(BaseModel):
    message: str
    task_id: str


class Outcome(BaseModel):
    task_id: str
    state: State
    result: Any = None
    error: str | None = None


@app.get("/")
async def status() -> dict[str, str]:
    return {"status": "ok", "docs": "/docs"}


@app.get("/solo/add")
async def solo_add(dure: DureDep) -> Submitted:
    """Add two random numbers in the background; answers at once."""
    x, y = _number(), _number()
    job = await dure.submit(add_task, x, y)
    return Submitted(message=f"adding {x} and {y}", task_id=job.id)


@app.get("/publish")
async def publish(dure: DureDep) -> Submitted:
    """Submit a task by its name, to a queue of its own: this application need not import its code."""
    numbers = [_number() for _ in range(3)]
    try:
        job = await dure.submit(SUM_TASK, numbers, queue=SUM_QUEUE)
    except UnknownTask as exc:
        raise HTTPException(503, str(exc)) from None
    return Submitted(message=f"{numbers} published to {SUM_QUEUE}", task_id=job.id)


@app.get("/run")
async def run(dure: DureDep, response: Response) -> Outcome:
    """Multiply two random numbers and wait a little; 202 if it takes longer."""
    job = await dure.submit(multi_task, _number(), _number())
    with suppress(ResultTimeout):
        await job.wait(timeout=PATIENCE_SECONDS)
    return _outcome(job.job, response)


@app.get("/result/{task_id}", responses={202: {"model": Outcome}, 404: {}, 500: {"model": Outcome}})
async def result(task_id: str, dure: DureDep, response: Response) -> Outcome:
    """200 with the result, 202 not yet, 404 for an id that nobody submitted, 500 if the task failed."""
    try:
        job = await dure.job(task_id)
    except UnknownJob as exc:
        raise HTTPException(404, str(exc)) from None
    return _outcome(job, response)


def _outcome(job: Job, response: Response) -> Outcome:
    if not job.state.final:
        response.status_code = 202
    elif job.state is not State.SUCCESS:
        response.status_code = 500
    error = f"{job.error.type}: {job.error.message}" if job.error else job.reason
    return Outcome(task_id=job.id, state=job.state, result=job.result, error=error)


def _number() -> int:
    return secrets.randbelow(100) + 1
