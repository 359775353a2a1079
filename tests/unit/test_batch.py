import asyncio
from collections.abc import Sequence

import pytest

from dure.batch import Batcher, Closed, Full

PATIENCE = 5.0


class Writer:
    """Writes when it is let; remembers each batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()
        self.error: Exception | None = None

    async def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        self.began.set()
        await self.let.wait()
        if self.error is not None:
            raise self.error
        return [item * 10 for item in items]

    async def held(self, batcher: Batcher[int, int]) -> asyncio.Future[int]:
        """One item on its way, so that the next ones gather."""
        self.let.clear()
        first = batcher.put(0)
        await self.began.wait()
        return first


@pytest.fixture(autouse=True)
async def _in_time() -> None:
    asyncio.get_running_loop().call_later(PATIENCE, asyncio.current_task().cancel)  # type: ignore[union-attr]


async def test_a_lone_item_waits_for_nothing() -> None:
    writer = Writer()
    assert await Batcher(writer).put(4) == 40
    assert writer.batches == [[4]]


async def test_what_arrives_meanwhile_travels_together_and_in_order() -> None:
    writer = Writer()
    batcher = Batcher(writer)
    first = await writer.held(batcher)
    rest = [batcher.put(n) for n in range(1, 6)]
    writer.let.set()
    assert await asyncio.gather(first, *rest) == [0, 10, 20, 30, 40, 50]
    assert writer.batches == [[0], [1, 2, 3, 4, 5]]


async def test_a_batch_is_no_larger_than_its_size() -> None:
    writer = Writer()
    batcher = Batcher(writer, size=2)
    first = await writer.held(batcher)
    rest = [batcher.put(n) for n in range(1, 6)]
    writer.let.set()
    await asyncio.gather(first, *rest)
    assert writer.batches == [[0], [1, 2], [3, 4], [5]]


async def test_an_exception_reaches_all_of_its_batch_and_none_of_the_next() -> None:
    writer = Writer()
    batcher = Batcher(writer)
    first = await writer.held(batcher)
    second = [batcher.put(n) for n in (1, 2)]
    writer.error = ValueError("no")
    writer.let.set()
    outcomes = await asyncio.gather(first, *second, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError] * 3
    writer.error = None
    assert await batcher.put(7) == 70


async def test_who_is_cancelled_before_the_batch_leaves_takes_back_their_own_item_and_no_other() -> None:
    writer = Writer()
    batcher = Batcher(writer)
    first = await writer.held(batcher)
    gone, stays = batcher.put(1), batcher.put(2)
    gone.cancel()
    first.cancel()
    writer.let.set()
    assert await stays == 20
    assert writer.batches[1] == [2]


async def test_a_caller_cancelled_in_the_middle_of_the_write_takes_no_other_with_it() -> None:
    writer = Writer()
    batcher = Batcher(writer)
    await writer.held(batcher)

    async def caller(item: int) -> int:
        return await batcher.put(item)

    callers = [asyncio.create_task(caller(n)) for n in (1, 2)]
    await asyncio.sleep(0)
    writer.began.clear()
    writer.let.set()
    await writer.began.wait()
    callers[0].cancel()
    assert await callers[1] == 20


async def test_a_full_batcher_refuses_at_once_and_keeps_what_it_has() -> None:
    writer = Writer()
    batcher = Batcher(writer, bound=2)
    first = await writer.held(batcher)
    kept = [batcher.put(1), batcher.put(2)]
    with pytest.raises(Full):
        batcher.put(3)
    writer.let.set()
    assert await asyncio.gather(first, *kept) == [0, 10, 20]


async def test_closing_writes_what_waits_then_refuses() -> None:
    writer = Writer()
    batcher = Batcher(writer, size=2)
    await writer.held(batcher)
    waiting = [batcher.put(n) for n in range(1, 6)]
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(Closed):
        batcher.put(9)
    writer.let.set()
    await closing
    assert [future.result() for future in waiting] == [10, 20, 30, 40, 50]


async def test_closing_twice_or_unused_is_fine() -> None:
    batcher = Batcher(Writer())
    await batcher.close()
    await batcher.close()
    used = Batcher(Writer())
    await used.put(1)
    await used.close()
    await used.close()


async def test_a_batch_ends_where_the_next_item_would_be_too_heavy_and_a_heavy_one_travels_alone() -> None:
    writer = Writer()
    batcher = Batcher[int, int](writer, size=10, weigh=lambda item: item)
    first = await writer.held(batcher)
    rest = [batcher.put(item) for item in (4, 6, 1, 50, 5)]
    writer.let.set()
    assert await asyncio.gather(first, *rest) == [0, 40, 60, 10, 500, 50]
    assert writer.batches == [[0], [4, 6], [1], [50], [5]]
    await batcher.close()
