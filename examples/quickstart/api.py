"""A web application that hands long work to Celery through Dure, with Dure's own routes under /dure."""

import secrets
from contextlib import suppress
from typing import Any

from celery import chain, group
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel

from dure import Job, ResultTimeout, State, UnknownJob, UnknownTask, UnknownWorkflow, WorkflowFailed
from dure.contrib.fastapi import DureDep, lifespan, router
from examples.quickstart.tasks import add_task, multi_task, sum_multiply_task

app = FastAPI(title="Quickstart", lifespan=lifespan())
app.include_router(router(), prefix="/dure")

SUM_TASK = "examples.quickstart.tasks.sum_multiply_task"
SUM_QUEUE = "sum-queue"
PATIENCE_SECONDS = 5.0


class Submitted(BaseModel):
    message: str
    task_id: str


class SubmittedChain(Submitted):
    status_code: int


class SubmittedGroup(BaseModel):
    message: str
    group_id: str
    individual_tasks: list[str]
    check_result_url: str


class GroupOutcome(BaseModel):
    group_id: str
    state: State
    completed: int
    total: int
    results: list[Any] | None = None
    error: str | None = None


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


@app.get("/solo/chain")
async def solo_chain(dure: DureDep) -> SubmittedChain:
    """Add two random numbers, then sum and multiply what came out; the task's id is that of the last."""
    x, y = _number(), _number()
    flow = await dure.submit(chain(add_task.s(x, y), sum_multiply_task.s().set(queue=SUM_QUEUE)))
    last = await flow.job("1")
    return SubmittedChain(message=f"adding {x} and {y}, then the sum", task_id=last.id, status_code=200)


@app.get("/solo/group")
async def solo_group(dure: DureDep) -> SubmittedGroup:
    """Add and multiply two random numbers side by side."""
    x, y = _number(), _number()
    flow = await dure.submit(group(add_task.s(x, y), multi_task.s(x, y)))
    members = [await flow.job(name) for name in ("0", "1")]
    return SubmittedGroup(
        message=f"adding and multiplying {x} and {y}",
        group_id=flow.id,
        individual_tasks=[job.id for job in members],
        check_result_url=f"/result/group/{flow.id}",
    )


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


@app.get("/result/group/{group_id}", responses={202: {"model": GroupOutcome}, 404: {}, 500: {"model": GroupOutcome}})
async def group_result(group_id: str, dure: DureDep, response: Response) -> GroupOutcome:
    """200 with the results in order, 202 with how many are there, 404 for an unknown id, 500 if a task failed."""
    try:
        flow = await dure.workflow_handle(group_id)
    except UnknownWorkflow as exc:
        raise HTTPException(404, str(exc)) from None
    counts = (await flow.view()).counts
    outcome = GroupOutcome(
        group_id=flow.id,
        state=flow.workflow.state,
        completed=sum(number for state, number in counts.items() if state.final),
        total=sum(counts.values()),
    )
    if not outcome.state.final:
        response.status_code = 202
        return outcome
    try:
        outcome.results = await flow.result()
    except WorkflowFailed as exc:
        response.status_code = 500
        outcome.error = str(exc)
    return outcome


def _outcome(job: Job, response: Response) -> Outcome:
    if not job.state.final:
        response.status_code = 202
    elif job.state is not State.SUCCESS:
        response.status_code = 500
    error = f"{job.error.type}: {job.error.message}" if job.error else job.reason
    return Outcome(task_id=job.id, state=job.state, result=job.result, error=error)


def _number() -> int:
    return secrets.randbelow(100) + 1
