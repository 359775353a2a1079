"""Tasks that hold the loop up, and a remote control that breaks the worker's consumption behind its back."""

import asyncio
import time
from contextlib import suppress
from typing import Any

from amqp import spec
from amqp.exceptions import NotFound
from celery.worker.control import control_command

from tests.integration.aio_tasks import task

MODULE = "tests.integration.health_tasks"


def compute(seconds: float) -> None:
    time.sleep(seconds)


@task()
async def aio_block(seconds: float, where: str = "here") -> str:
    """Holds the loop up by itself, or in a coroutine that it starts."""

    async def child() -> None:
        compute(seconds)

    await asyncio.sleep(0)
    if where == "child":
        await asyncio.create_task(child())
    else:
        compute(seconds)
    return "computed"


@control_command(name="sabotage")
def sabotage(state: Any, how: str, **_: Any) -> None:
    tasks = state.consumer.task_consumer
    channel = tasks.channel
    if how == "cancel":  # the broker has no consumer any more, and nobody here knows
        for tag in tasks._active_tags.values():
            channel.send_method(spec.Basic.Cancel, "sb", (tag, True))
    elif how == "forget":  # the broker's word came while something else was read for
        for tag in tasks._active_tags.values():
            channel._remove_tag(tag)
    elif how == "close":  # as above, of the whole channel
        with suppress(NotFound):
            channel.queue_declare("no-such-queue", passive=True)
