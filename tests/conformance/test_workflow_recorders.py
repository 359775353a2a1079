"""Several recorders share the ends of the same workflows: each is passed on once, and no two wait for each other."""

import asyncio
import random
from collections import Counter
from typing import TypeVar

from dure.event import JobEvent
from dure.job import State
from tests.conformance.flow_shapes import current, node, state, submitted
from tests.conformance.ledger_processes import recorded_at_once
from tests.conformance.ledgers import NOW, Database, opened, told

WIDE = 500
RECORDERS = 3

Item = TypeVar("Item")


async def test_three_recorders_bring_chords_of_500_to_their_end(database: Database) -> None:
    header = [node(f"h{number}") for number in range(WIDE)]
    body = node("body", *(each.name for each in header), args=[[{"$result": each.name} for each in header]])
    async with opened(database) as ledger:
        made = [await submitted(ledger, *header, body) for _ in range(2)]
        ids = [each.job.id for flow in made for each in flow.nodes if each.job.node != "body"]
        before = _trouble(database)

        released = await asyncio.to_thread(recorded_at_once, database.url, *_shares(ids))

        bodies = [await current(ledger, each, "body") for each in made]
        assert Counter(released) == Counter(each.id for each in bodies)
        assert [each.args for each in bodies] == [[list(range(WIDE))]] * 2
        assert [number for (number,) in database.rows("SELECT open FROM workflows")] == [1, 1]
        await ledger.record([told(each.id, State.SUCCESS, NOW + 90) for each in bodies])
        assert [await state(ledger, each) for each in made] == [(State.SUCCESS, None)] * 2
    assert _trouble(database) == before


def _shares(ids: list[str]) -> tuple[list[list[list[JobEvent]]], list[list[str]]]:
    """For each recorder its batches, in which two workflows are mixed and every end comes to two of the recorders; and
    the confirmations of the broker that come meanwhile."""
    chance = random.Random(7)
    told_to: list[list[JobEvent]] = [[] for _ in range(RECORDERS)]
    for job_id in ids:
        number = int(job_id.rpartition(".h")[2])
        for share in chance.sample(told_to, 2):
            share.append(told(job_id, State.STARTED, NOW + 10))
            share.append(told(job_id, State.SUCCESS, NOW + 20, result=number, has_result=True))
    for share in told_to:
        chance.shuffle(share)
    confirmed = chance.sample(ids, len(ids))
    return [_cut(share, chance) for share in told_to], _cut(confirmed, chance)


def _cut(items: list[Item], chance: random.Random) -> list[list[Item]]:
    batches = []
    while items:
        size = chance.randint(1, 80)
        batches.append(items[:size])
        items = items[size:]
    return batches


def _trouble(database: Database) -> int:
    """How often the server has written that somebody waited in a circle."""
    return 0 if database.server is None else database.server.log.read_bytes().count(b"deadlock detected")
