import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from dure.service import Health, Loop

PATIENCE = 10.0


class Scripted(Loop):
    """Fails as often as it is told, then is alive until it is stopped."""

    name = "scripted"

    def __init__(self, failures: int = 0, error: type[BaseException] = ValueError) -> None:
        super().__init__()
        self.failures = failures
        self.error = error
        self.runs = 0
        self.told: list[Health] = []  # at the beginning of each run
        self.ended = 0
        self.works = asyncio.Event()

    async def run(self) -> None:
        self.runs += 1
        self.told.append(self.health())
        try:
            if self.runs <= self.failures:
                raise self.error("on purpose")
            self.alive()
            self.works.set()
            await asyncio.Event().wait()
        finally:
            self.ended += 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def service() -> AsyncIterator[Scripted]:
    loop = Scripted(failures=2)
    yield loop
    await loop.stop()


async def test_a_service_tells_its_health_through_its_life(service: Scripted) -> None:
    assert (service.health().ok, service.health().detail) == (False, "not started")
    await service.start()
    assert not service.health().ok
    async with asyncio.timeout(PATIENCE):
        await service.works.wait()
    # A pause is of any length, also of none: who looks now and then may miss what was told in between.
    assert service.told[0] == Health(False, "starting")
    assert service.told[1:] == [Health(False, "ValueError: on purpose")] * 2
    assert service.health().ok
    await service.stop()
    assert (service.health().ok, service.health().detail) == (False, "stopped")


async def test_a_service_that_fails_starts_again(service: Scripted) -> None:
    await service.start()
    async with asyncio.timeout(PATIENCE):
        await service.works.wait()
    assert service.runs == 3


async def test_starting_twice_runs_it_once() -> None:
    service = Scripted()
    await service.start()
    await service.start()
    await service.works.wait()
    assert service.runs == 1
    await service.stop()


async def test_stopping_ends_it_and_may_be_repeated() -> None:
    service = Scripted()
    await service.stop()
    await service.start()
    await service.works.wait()
    await service.stop()
    await service.stop()
    assert service.ended == 1


async def test_a_stopped_service_can_be_started_again() -> None:
    service = Scripted()
    await service.start()
    await service.works.wait()
    await service.stop()
    service.works.clear()
    await service.start()
    await service.works.wait()
    assert service.health().ok
    await service.stop()


async def test_a_service_whose_run_returns_is_not_healthy() -> None:
    """A run that ends on its own does no more work, and must not look as if it did."""

    class Brief(Scripted):
        async def run(self) -> None:
            self.runs += 1
            self.alive()

    service = Brief()
    await service.start()
    await until(lambda: service.runs >= 1 and not service.health().ok)
    await service.stop()


async def test_the_pause_is_short_again_after_it_has_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures of long ago do not make the next one wait longer."""
    monkeypatch.setattr("dure.service._A_WHILE", 0.0)

    class Flaky(Scripted):
        async def run(self) -> None:
            self.runs += 1
            self.alive()
            raise ValueError("on purpose")

    service = Flaky()
    await service.start()
    async with asyncio.timeout(PATIENCE):
        while service.runs < 10:
            await asyncio.sleep(0.01)
    await service.stop()


async def test_a_cancellation_that_was_turned_into_an_error_stops_it_all_the_same() -> None:
    """aiormq does so: its channel tells of a cancelled call as of a closed channel."""

    class Deaf(Scripted):
        async def run(self) -> None:
            self.runs += 1
            self.works.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if self.runs == 1:
                    raise ConnectionError("the channel was closed") from None
                raise

    service = Deaf()
    await service.start()
    await service.works.wait()
    async with asyncio.timeout(PATIENCE):
        await service.stop()
    assert service.health().detail == "stopped"
    assert "dure-scripted" not in {task.get_name() for task in asyncio.all_tasks()}
