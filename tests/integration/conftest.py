"""A site and a client of it, for tests that need workers in processes of their own."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from dure import Dure
from dure.gateway.runtime import running
from tests.acceptance.site import PATIENCE, Site, site
from tests.services.modes import servers_of


@pytest.fixture(scope="module", params=["embedded", "production"])
def place(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A broker, a ledger, one worker of ours, and a stock one on the queue `stock`."""
    with site(**servers_of(request)) as place:
        place.start_worker("ours")
        place.start_worker("stock", "-Q", "stock", "-E", stock=True)
        place.await_worker("ours")
        place.await_worker("stock")
        yield place


@pytest.fixture
async def client(place: Site) -> AsyncIterator[Dure]:
    """With its services, once the tasks are known."""
    async with running(place.settings) as (dure, _):
        async with asyncio.timeout(PATIENCE):
            while not await _is_known(dure, "shop.add"):
                await asyncio.sleep(0.02)
        yield dure


async def _is_known(dure: Dure, name: str) -> bool:
    task = await dure.catalogue.find(name)
    return task is not None and task.arguments is not None
