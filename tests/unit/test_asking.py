import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from dure.client.asking import Asking
from dure.entry import Position
from dure.errors import LedgerUnavailable
from dure.job import Job, State
from dure.ledger import JobEntries, Ledger
from tests.unit.test_follow import JOB


class Counting:
    """A ledger that knows one job, and waits to be let go on."""

    def __init__(self) -> None:
        self.records: list[Sequence[str]] = []
        self.places: list[tuple[str, Position]] = []
        self.job = JOB
        self.is_away = False

    async def some_jobs(self, ids: Sequence[str]) -> dict[str, Job]:
        if self.is_away:
            raise LedgerUnavailable("away")
        self.records.append(ids)
        await asyncio.sleep(0)
        return {JOB.id: self.job} if JOB.id in ids else {}

    async def entries(self, job_id: str, after: Position, *, limit: int) -> JobEntries:
        self.places.append((job_id, after))
        await asyncio.sleep(0)
        return JobEntries(last=after)


@pytest.fixture
def ledger() -> Counting:
    return Counting()


@pytest.fixture
def asking(ledger: Counting) -> Asking:
    return Asking(cast("Ledger", cast("Any", ledger)))


async def test_many_who_ask_the_same_share_an_answer(ledger: Counting, asking: Asking) -> None:
    answers = await asyncio.gather(*(asking.feed(JOB.id, Position(1, n % 2)) for n in range(40)))
    assert [answer.job for answer in answers] == [JOB] * 40
    assert [answer.entries.last.n for answer in answers] == [0, 1] * 20
    assert ledger.records == [[JOB.id]]
    assert sorted(ledger.places) == [(JOB.id, Position(1, 0)), (JOB.id, Position(1, 1))]


async def test_who_asks_later_is_not_given_an_earlier_answer(ledger: Counting, asking: Asking) -> None:
    first = asyncio.create_task(asking.job(JOB.id))
    while not ledger.records:
        await asyncio.sleep(0)
    second = asyncio.create_task(asking.job(JOB.id))
    await first
    ledger.job = ended = Job(id=JOB.id, task=JOB.task, state=State.SUCCESS)
    assert await second == ended
    assert len(ledger.records) == 2


async def test_a_job_that_nobody_knows_is_none(asking: Asking) -> None:
    assert await asyncio.gather(asking.job("x"), asking.job(JOB.id)) == [None, JOB]


async def test_a_ledger_that_is_away_is_asked_again_by_the_next(ledger: Counting, asking: Asking) -> None:
    ledger.is_away = True
    with pytest.raises(LedgerUnavailable):
        await asking.feed(JOB.id, Position())
    ledger.is_away = False
    assert (await asking.feed(JOB.id, Position())).job == JOB
    await asking.close()
