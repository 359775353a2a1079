"""The client of a worker, on each broker in turn: `client = pytest.fixture(params=BROKERS)(client_of)`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.worker_harness import Client

BROKERS = ["rabbitmq", "embedded"]


def client_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    url = f"dure://{tmp_path}/broker.db" if request.param == "embedded" else request.getfixturevalue("rabbitmq_url")
    client = Client(url)
    yield client
    client.close()
