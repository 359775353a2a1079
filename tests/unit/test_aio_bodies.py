"""`async def` tasks outside of a worker, and the stacks and interruptions under them."""

import asyncio
import threading
from typing import Any

import pytest
from celery import Celery, Task, current_task
from celery.exceptions import SoftTimeLimitExceeded

from dure.worker.aio import bridge, home
from dure.worker.aio.bodies import install
from dure.worker.aio.interrupt import Interruptible


@pytest.fixture
def app() -> Celery:
    app = Celery("shop", broker="memory://", set_as_current=False)
    install(app)

    @app.task(shared=False, name="add")
    async def add(x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    @app.task(shared=False, name="who", bind=True)
    async def who(self: Task) -> tuple[str, str, int]:
        await asyncio.sleep(0)
        return self.request.id, current_task.request.id, threading.get_ident()

    @app.task(shared=False, name="flaky", bind=True, autoretry_for=(OSError,), max_retries=2, default_retry_delay=0)
    async def flaky(self: Task) -> int:
        await asyncio.sleep(0)
        if self.request.retries < 2:
            raise OSError("flaky")
        return self.request.retries

    @app.task(shared=False, name="fail")
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    @app.task(shared=False, name="on_error")
    async def on_error(request: Any, exc: Exception, traceback: Any, heard: list[Any]) -> None:
        await asyncio.sleep(0)
        heard.append((request.id, str(exc), await app.tasks["add"](1, 2)))

    app.finalize()
    return app


def test_apply_waits_for_the_coroutine(app: Celery) -> None:
    assert app.tasks["add"].apply((1, 2)).get() == 3


def test_an_eager_application_runs_coroutines(app: Celery) -> None:
    app.conf.task_always_eager = True
    assert app.tasks["add"].delay(1, 2).get() == 3


async def test_apply_works_where_a_loop_runs_already(app: Celery) -> None:
    assert app.tasks["add"].apply((1, 2)).get() == 3


async def test_a_task_that_is_called_directly_is_its_coroutine(app: Celery) -> None:
    assert await app.tasks["add"](1, 2) == 3


def test_the_coroutine_has_the_request_and_one_long_lived_loop(app: Celery) -> None:
    first, second = app.tasks["who"].apply(task_id="a").get(), app.tasks["who"].apply(task_id="b").get()
    assert (first[:2], second[:2]) == (("a", "a"), ("b", "b"))
    assert first[2] == second[2] != threading.get_ident()
    assert current_task._get_current_object() is None


def test_a_coroutine_retries_by_itself(app: Celery) -> None:
    assert app.tasks["flaky"].apply().get() == 2


def test_an_errback_of_the_new_form_may_be_a_coroutine_and_await_others(app: Celery) -> None:
    heard: list[Any] = []
    app.tasks["fail"].apply(task_id="a", link_error=app.tasks["on_error"].s(heard))
    assert heard == [("a", "no", 3)]


async def test_an_interruption_is_raised_where_the_coroutine_waits_and_may_be_caught() -> None:
    waiting = asyncio.Event()

    async def body() -> str:
        waiting.set()
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            await asyncio.sleep(0)
            return "tidied"
        return "rested"

    interruptible = Interruptible(body())

    async def run() -> str:
        return await interruptible

    task = asyncio.create_task(run())
    await waiting.wait()
    interruptible.interrupt(SoftTimeLimitExceeded(1))
    assert await task == "tidied"
    assert task.cancelling() == 0


async def test_a_real_cancellation_stays_one() -> None:
    interruptible = Interruptible(asyncio.sleep(60))

    async def run() -> Any:
        return await interruptible

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_exception_in_a_thread_that_waits_is_raised_in_the_coroutine() -> None:
    seen: list[str] = []

    async def body() -> None:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded as exc:
            seen.append(type(exc).__name__)
            raise

    class Impatient(home.Future):  # type: ignore[type-arg]
        calls = 0

        def result(self, timeout: float | None = None) -> Any:
            type(self).calls += 1
            if self.calls == 1:
                raise SoftTimeLimitExceeded(1)
            return super().result(timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home, "Future", Impatient)
        with pytest.raises(SoftTimeLimitExceeded):
            home.run(body())
    assert seen == ["SoftTimeLimitExceeded"]


async def test_code_that_waits_in_a_bridge_lets_others_run() -> None:
    gate = asyncio.get_running_loop().create_future()

    def synchronous() -> str:
        assert bridge.may_wait()
        return f"{bridge.owner()} {bridge.wait(gate)}"

    task = asyncio.create_task(bridge.run("mine", synchronous))
    await asyncio.sleep(0)
    assert not task.done()
    gate.set_result("open")
    assert await task == "mine open"
    assert not bridge.may_wait()


async def test_what_is_awaited_raises_in_the_bridge() -> None:
    async def broken() -> None:
        raise KeyError("no")

    def synchronous() -> str:
        try:
            bridge.wait(broken())
        except KeyError:
            return "caught"
        return "nothing"

    assert await bridge.run(None, synchronous) == "caught"
