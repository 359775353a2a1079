"""Dure's services are killed (SIGKILL) at points of a workflow's way, and the workflow comes to its end all the same.

Here at a few points, spread over the way; at each of them with KILL_POINTS=all, which takes some minutes.
"""

import asyncio
import itertools
import os
from collections.abc import Iterator, Mapping

import pytest

from tests.chaos.kill_walk import Trail, walk
from tests.services import PostgreSQL, RabbitMQ

ALL = os.environ.get("KILL_POINTS") == "all"
FEW = {"embedded": (7, 22, 41, 58, 77, 101), "production": (4, 16, 31, 49, 66, 93)}
SIDE_BY_SIDE = 3 if ALL else 2
BEYOND = 3  # points are not the same in each run, so one number that was not reached is not the end


async def _walk_both(places: Mapping[str, list[Mapping[str, str]]]) -> dict[str, Trail]:
    def numbers(mode: str) -> Iterator[int]:
        return itertools.count(1) if ALL else iter(FEW[mode])

    walks = (walk(environments, numbers(mode), BEYOND) for mode, environments in places.items())
    return dict(zip(places, await asyncio.gather(*walks), strict=True))


@pytest.fixture(scope="module")
def trails(rabbitmq: RabbitMQ, postgres: PostgreSQL) -> dict[str, Trail]:
    """Of both modes, which are walked side by side."""
    servers = [
        {"DURE_BROKER_URL": rabbitmq.start().vhost(), "DURE_LEDGER_URL": postgres.start().database()}
        for _ in range(SIDE_BY_SIDE)
    ]
    return asyncio.run(_walk_both({"embedded": [{} for _ in servers], "production": servers}))


@pytest.mark.parametrize("mode", FEW)
def test_a_workflow_whose_services_are_killed_anywhere_comes_to_its_end(mode: str, trails: dict[str, Trail]) -> None:
    trail = trails[mode]
    print(f"\n{mode}: killed at {len(trail.killed)} points, ", end="")
    print(f"{sum(trail.repeated.values())} tasks run again, {max(trail.seconds):.1f} s at most")
    print(dict(sorted(trail.killed.items())) if trail.wrong else "")
    assert not trail.wrong, "\n".join(trail.wrong)
    assert len(trail.killed) >= (50 if ALL else len(FEW[mode]) // 2)  # a faster machine has fewer, larger batches
