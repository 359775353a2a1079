"""Whether the ledger has all that a job told is known by what its attempts say at their ends."""

from dure.entry import Position
from dure.job import State
from dure.ledger import JobEntries, Ledger, Limits
from tests.conformance.ledgers import NOW, Database, accepted, job, opened, told
from tests.conformance.test_ledger_feed import RUN, said


async def test_a_feed_is_complete_when_all_is_there_that_its_end_speaks_of(ledger: Ledger) -> None:
    one, other = job(1), job(2)
    await accepted(ledger, one, other)
    last = Position(RUN, 9)
    await ledger.record([told(one.id, State.RETRY, told=last), told(other.id, State.SUCCESS)])
    await ledger.record([], told=[said(one.id, 1, 3), said(other.id, 1, 3)])
    found = await ledger.entries(one.id)
    assert (found.last, found.complete) == (last, False)
    await ledger.record([told(one.id, State.SUCCESS, attempt=2, told=Position(RUN + 5, 2))])
    for late in (said(one.id, 1, 2, run=RUN + 5), said(one.id, 7, 9), said(one.id, 4, 5)):
        assert not (await ledger.entries(one.id)).complete
        await ledger.record([], told=[late])
    assert not (await ledger.entries(one.id)).complete
    await ledger.record([], told=[said(one.id, 5, 6)])
    for after in (Position(), Position(RUN, 4), Position(RUN + 5, 1), Position(RUN + 5, 2)):
        found = await ledger.entries(one.id, after)
        assert (found.last, found.complete) == (Position(RUN + 5, 2), True)
    assert not (await ledger.entries(one.id, limit=10)).complete, "there are more"
    assert not (await ledger.entries(other.id)).complete, "its worker has not said how far it went"


async def test_a_feed_whose_oldest_are_gone_is_complete(database: Database) -> None:
    async with opened(database, kept=Limits(entries=20)) as ledger:
        one = job()
        await accepted(ledger, one)
        for first in range(1, 100, 7):
            await ledger.record([], told=[said(one.id, first, first + 6)])
        await ledger.record([told(one.id, State.SUCCESS, told=Position(RUN, 105))])
        found = await ledger.entries(one.id)
        assert (found.complete, found.dropped > 0) == (True, True)
        assert (await ledger.entries(one.id, Position(RUN, 50))).complete
        await ledger.drop_old_feed(NOW * 2)
        assert await ledger.entries(one.id) == JobEntries(dropped=105, last=Position(RUN, 105), complete=True)
