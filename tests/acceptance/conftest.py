"""One gateway with its workers for all tests of the HTTP interface, in each mode."""

from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.http import NAMES
from tests.acceptance.site import Site, site
from tests.services.modes import servers_of


@pytest.fixture(scope="session", params=["embedded", "production"])
def live(request: pytest.FixtureRequest) -> Iterator[Site]:
    with site(**servers_of(request)) as place:
        place.start_gateway()
        place.start_worker("ours")
        place.start_worker("stock", "-Q", "stock", stock=True)
        place.await_gateway()
        place.await_worker("ours")
        place.await_worker("stock")
        place.await_tasks(*NAMES)
        yield place


@pytest.fixture(scope="session")
def http(live: Site) -> Iterator[httpx.Client]:
    with live.client() as client:
        yield client
