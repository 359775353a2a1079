"""The tasks for Celery's worker and for ours."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from typing import Any

from celery import Celery

from benchmarks.workers import marks
from benchmarks.workers.message import Message

app = Celery("bench", broker=os.environ.get("BENCH_BROKER"), backend=os.environ.get("BENCH_RESULTS"))
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_heartbeat=float(os.environ.get("BENCH_HEARTBEAT", "120")),
    task_ignore_result="BENCH_RESULTS" not in os.environ,
    task_default_queue_type=os.environ.get("BENCH_QUEUE_TYPE", "classic"),
    worker_detect_quorum_queues=True,
    worker_send_task_events=os.environ.get("BENCH_EVENTS") == "yes",
)


@app.task
def noop() -> None: ...


@app.task
async def aio_noop() -> None: ...


@app.task
def mark(name: str) -> None:
    marks.mark(name)


@app.task
async def aio_mark(name: str) -> None:
    marks.mark(name)


@app.task
def nap(seconds: float) -> None:
    marks.mark("taken")
    time.sleep(seconds)
    marks.mark("done")


@app.task
async def aio_nap(seconds: float) -> None:
    marks.mark("taken")
    await asyncio.sleep(seconds)
    marks.mark("done")


@app.task
def burn(seconds: float) -> None:
    marks.burn(seconds)
    marks.mark("done")


def encode(task: str, *args: Any) -> Message:
    job_id = str(uuid.uuid4())
    found = app.amqp.as_task_v2(job_id, f"{__name__}.{task}", args, {}, reply_to=app.thread_oid)
    return Message(
        exchange="",
        routing_key="celery",
        body=json.dumps(found.body).encode(),
        headers={name: value for name, value in found.headers.items() if value is not None},
        properties={
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "correlation_id": job_id,
            "reply_to": app.thread_oid,
        },
    )


def declare() -> None:
    with app.connection_for_write() as connection, connection.channel() as channel:
        app.amqp.queues["celery"](channel).declare()
