"""A gateway whose broker takes nothing, or whose ledger does not answer: it goes on answering, within its memory."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.acceptance.site import Site, site, until
from tests.conformance.ledgers import frozen
from tests.services import PostgreSQL, RabbitMQ

WAIT = 2.0


@pytest.fixture
def production(rabbitmq: RabbitMQ, postgres: PostgreSQL) -> Iterator[Site]:
    urls = {"DURE_BROKER_URL": rabbitmq.start().vhost(), "DURE_LEDGER_URL": postgres.start().database()}
    with site(**urls, DURE_LEDGER_TIMEOUT=str(WAIT)) as place:
        place.start_gateway()
        place.await_gateway()
        yield place


@contextlib.contextmanager
def alarmed(rabbitmq: RabbitMQ) -> Iterator[None]:
    rabbitmq.alarm(True)
    try:
        yield
    finally:
        rabbitmq.alarm(False)


async def _submitted(place: Site, number: int, at_once: int = 32) -> list[httpx.Response]:
    numbers = iter(range(number))
    answers = []

    async def submit_in_turn(client: httpx.AsyncClient) -> None:
        for n in numbers:
            answers.append(await client.post("/api/v1/tasks/a.b?force=true", json={"args": [n, "x" * 2000]}))

    # One for all: to make one takes a good part of what a request may take, and holds up those that are under way.
    async with httpx.AsyncClient(base_url=place.url, timeout=20, trust_env=False) as client:
        await asyncio.gather(*(submit_in_turn(client) for _ in range(min(at_once, number))))
    return answers


def _resident(place: Site) -> int:
    """Bytes of memory that the gateway has."""
    return psutil.Process(place.processes[0].pid).memory_info().rss


def _counts(place: Site) -> dict[str, int]:
    with place.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return {
        line.split('"')[1]: int(float(line.rpartition(" ")[2])) for line in lines if line.startswith("dure_jobs{state=")
    }


def test_while_the_broker_blocks_its_publishers_jobs_are_accepted_and_wait_as_rows(
    production: Site, rabbitmq: RabbitMQ
) -> None:
    asyncio.run(_submitted(production, 200))
    with alarmed(rabbitmq):
        asyncio.run(_submitted(production, 200))
        before = _resident(production)

        answers = asyncio.run(_submitted(production, 3000))

        assert {answer.status_code for answer in answers} == {202}
        assert max(answer.elapsed.total_seconds() for answer in answers) < 5
        assert _resident(production) - before < 40 * 2**20
        assert _counts(production)["ACCEPTED"] >= 3000
    until(lambda: _counts(production) == {"QUEUED": 3400}, "every message")


def test_a_ledger_that_does_not_answer_is_told_in_time_and_nothing_piles_up(
    production: Site, postgres: PostgreSQL
) -> None:
    asyncio.run(_submitted(production, 50))
    with frozen(postgres):
        began = time.monotonic()
        answers = asyncio.run(_submitted(production, 100, at_once=100))
        with production.client() as client:
            looked_up = client.get("/api/v1/jobs")
        took = time.monotonic() - began

        assert {answer.status_code for answer in answers} == {503}
        assert looked_up.status_code == 503
        assert {answer.headers["retry-after"] for answer in answers} == {"1"}
        assert took < 3 * WAIT + 5
    until(lambda: asyncio.run(_submitted(production, 1))[0].status_code == 202, "an answer")
    accepted = sum(_counts(production).values())
    # Of what was refused, only what was in the middle of its commit can be there.
    assert accepted < 51 + 100


def test_a_locked_sqlite_file_is_answered_with_503_in_time() -> None:
    with site(DURE_LEDGER_TIMEOUT=str(WAIT)) as place:
        place.start_gateway()
        place.await_gateway()
        assert asyncio.run(_submitted(place, 1))[0].status_code == 202
        with contextlib.closing(sqlite3.connect(place.folder / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answers = asyncio.run(_submitted(place, 20))
            assert {answer.status_code for answer in answers} == {503}
            assert max(answer.elapsed.total_seconds() for answer in answers) < 3 * WAIT
            other.execute("ROLLBACK")
        until(lambda: asyncio.run(_submitted(place, 1))[0].status_code == 202, "an answer")
