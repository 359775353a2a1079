import asyncio

import pytest

from dure.gateway.deadline import Deadline, DeadlinePassed

LONG = 60.0


async def test_a_wait_ends_when_its_time_is_over_and_the_next_is_not_touched_by_it() -> None:
    deadline = Deadline()
    for _ in range(3):
        with pytest.raises(DeadlinePassed), deadline.within(0.01):
            await asyncio.sleep(LONG)
        with deadline.within(LONG):
            await asyncio.sleep(0)
    deadline.close()


async def test_a_shorter_wait_after_a_longer_one_ends_in_its_own_time() -> None:
    deadline = Deadline()
    with deadline.within(LONG):
        await asyncio.sleep(0)
    with pytest.raises(DeadlinePassed), deadline.within(0.01):
        await asyncio.sleep(LONG)


async def test_a_timer_that_is_left_from_an_earlier_wait_does_not_end_a_later_one() -> None:
    deadline = Deadline()
    with deadline.within(0.01):
        await asyncio.sleep(0)
    with deadline.within(LONG):
        await asyncio.sleep(0.05)


async def test_whoever_waits_can_be_told_to_leave() -> None:
    deadline = Deadline()
    deadline.now()  # nobody waits
    asyncio.get_running_loop().call_later(0.01, deadline.now)
    with pytest.raises(DeadlinePassed), deadline.within(LONG):
        await asyncio.sleep(LONG)


async def test_who_is_cancelled_is_not_told_that_a_time_is_over() -> None:
    async def wait() -> None:
        with Deadline().within(LONG):
            await asyncio.sleep(LONG)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_of_what_is_waited_for_stays_one() -> None:
    with pytest.raises(TimeoutError) as raised, Deadline().within(LONG):
        raise TimeoutError("of the database")
    assert not isinstance(raised.value, DeadlinePassed)
