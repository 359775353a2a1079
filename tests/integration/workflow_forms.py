"""Workflows as tests write them, and how far they are."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from dure import State, WorkflowHandle

PATIENCE = 30.0
HELD = {"wait": {}}


def add(x: Any, y: int | None = None, **options: Any) -> dict[str, Any]:
    return {"task": "shop.add", "args": [x] if y is None else [x, y], **options}


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            if found := await condition():
                return found
            await asyncio.sleep(0.02)


async def states(workflow: WorkflowHandle[Any]) -> dict[str, State]:
    return {node.job.node or "": node.job.state for node in (await workflow.view()).nodes}


async def is_(workflow: WorkflowHandle[Any], name: str, state: State) -> bool:
    return (await states(workflow)).get(name) is state
