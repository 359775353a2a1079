"""The tasks for Taskiq."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.queue import Queue, QueueType
from taskiq_redis import RedisAsyncResultBackend

from benchmarks.workers import marks
from benchmarks.workers.message import Message

broker = AioPikaBroker(os.environ.get("BENCH_BROKER"), qos=int(os.environ.get("BENCH_QOS", "100")))
broker.with_queue(Queue(type=QueueType(os.environ.get("BENCH_QUEUE_TYPE", "classic"))))
if results := os.environ.get("BENCH_RESULTS"):
    broker.with_result_backend(RedisAsyncResultBackend(results, result_ex_time=86_400))


@broker.task
async def noop() -> None: ...


@broker.task
async def mark(name: str) -> None:
    marks.mark(name)


@broker.task
async def nap(seconds: float) -> None:
    marks.mark("taken")
    await asyncio.sleep(seconds)
    marks.mark("done")


@broker.task
def burn(seconds: float) -> None:
    marks.burn(seconds)
    marks.mark("done")


def encode(task: str, *args: Any) -> Message:
    found: Any = broker.find_task(f"{__name__}:{task}")
    sent = broker.formatter.dumps(found.kicker()._prepare_message(*args))
    return Message(
        exchange="",
        routing_key="taskiq",
        body=sent.message,
        headers={"task_id": sent.task_id, "task_name": sent.task_name, **sent.labels},
        properties={"content_type": "application/json"},
    )


def declare() -> None:
    async def start() -> None:
        await broker.startup()
        await broker.shutdown()

    asyncio.run(start())
