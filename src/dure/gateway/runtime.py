"""What runs beside the routes: the client and the services, for as long as the application lives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from dure.client import Dure
from dure.client.leases import LEASE
from dure.client.results import connect_results
from dure.ledger.census import Census
from dure.ledger.coordinator import Coordinator
from dure.ledger.dead_letters import DeadLetters
from dure.ledger.recorder import Recorder
from dure.ledger.relay import Relay
from dure.ledger.sweeper import Sweeper
from dure.service import Service
from dure.settings import Settings


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[Dure, Sequence[Service]]]:
    """Opens the client, starts the services; stops them in the opposite order."""
    results = connect_results(settings)
    async with Dure(settings) as dure:
        recorder = Recorder(dure.ledger, dure.link, results, tell=dure.telling.again)
        services: list[Service] = [
            recorder,
            Relay(dure.ledger, dure.link, dure.publisher, lease=LEASE),
            Coordinator(dure.ledger, dure.link, lease=LEASE),
            DeadLetters(dure.ledger, dure.link, recorder),
            Sweeper(
                dure.ledger,
                dure.link,
                event_queue=settings.event_queue,
                settle_after=settings.settle_after,
                results=results,
                feed_days=settings.feed_days,
            ),
            Census(dure.ledger, dure.link),
        ]
        try:
            for service in services:
                await service.start()
            yield dure, services
        finally:
            for service in reversed(services):
                await service.stop()
            await results.close()
