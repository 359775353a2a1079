"""The life of a long-running part: recorder, relay, census and their like.

A service owns one background task. `start` and `stop` may be called twice; a service that fails is started again
after a pause that grows to five seconds, and says so in its health until it has worked for a while.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import structlog
from msgspec import Struct
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

log = structlog.get_logger("dure")

_CANCEL_AGAIN = 0.2
_A_WHILE = 10.0  # seconds of work after which the pause is short again


class Health(Struct, frozen=True):
    ok: bool
    detail: str = ""


class Service(Protocol):
    name: str

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def health(self) -> Health: ...


class Loop:
    """A Service around one coroutine function; subclasses write `run`, and call `alive` when a round went well."""

    name = "loop"

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._health = Health(False, "not started")

    async def run(self) -> None:
        raise NotImplementedError

    def alive(self) -> None:
        if not self._health.ok:
            self._health = Health(True)

    def health(self) -> Health:
        return self._health

    async def start(self) -> None:
        if self._task is None:
            self._health = Health(False, "starting")
            self._task = asyncio.create_task(self._supervise(), name=f"dure-{self.name}")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            while not task.done():  # one cancellation can be lost: a library below may turn it into its own error
                task.cancel()
                await asyncio.wait([task], timeout=_CANCEL_AGAIN)
            self._health = Health(False, "stopped")

    async def _supervise(self) -> None:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Exception),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            before_sleep=self._failed,
        ):
            with attempt:
                began = time.monotonic()
                try:
                    await self.run()
                finally:
                    if time.monotonic() - began > _A_WHILE:
                        attempt.retry_state.attempt_number = 1
                raise RuntimeError("ended on its own")

    def _failed(self, state: RetryCallState) -> None:
        exc = state.outcome.exception() if state.outcome else None
        self._health = Health(False, f"{type(exc).__name__}: {exc}")
        log.warning("service failed and will start again", service=self.name, error=str(exc))
