"""The tasks for Dramatiq."""

from __future__ import annotations

import os
import time
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.workers import marks
from benchmarks.workers.message import Message

broker = RabbitmqBroker(url=os.environ.get("BENCH_BROKER"))
if os.environ.get("BENCH_QUEUE_TYPE") == "quorum":
    # It has no setting for it.
    build = broker._build_queue_arguments
    broker._build_queue_arguments = lambda name: build(name) | {"x-queue-type": "quorum"}  # type: ignore[method-assign]
options: dict[str, Any] = {}
if results := os.environ.get("BENCH_RESULTS"):
    broker.add_middleware(Results(backend=RedisBackend(url=results)))
    options["store_results"] = True
dramatiq.set_broker(broker)


@dramatiq.actor(**options)
def noop() -> int:
    return 0  # a result of None is warned of


@dramatiq.actor(**options)
def mark(name: str) -> int:
    marks.mark(name)
    return 0


@dramatiq.actor(**options)
def nap(seconds: float) -> int:
    marks.mark("taken")
    time.sleep(seconds)
    marks.mark("done")
    return 0


@dramatiq.actor(**options)
def burn(seconds: float) -> int:
    marks.burn(seconds)
    marks.mark("done")
    return 0


def encode(task: str, *args: Any) -> Message:
    message = broker.get_actor(task).message(*args)
    return Message(exchange="", routing_key="default", body=message.encode(), headers={}, properties={})


def declare() -> None:
    broker.declare_queue("default", ensure=True)
    broker.close()
