"""Ledger, broker and result backend: there, and fit for use?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from dure.cli.checks.finding import Finding, ok, problem
from dure.errors import DureError
from dure.settings import Settings
from dure.url import file_path, redact, scheme

_PATIENCE_SECONDS = 5.0


async def check_services(settings: Settings) -> list[Finding]:
    """All at once: one that does not answer costs its patience only once."""
    return list(await asyncio.gather(_ledger(settings), _broker(settings), _results(settings)))


async def _ledger(settings: Settings) -> Finding:
    from dure.ledger import Ledger

    async def try_it() -> None:
        ledger = Ledger(settings.ledger, pool_size=2)
        try:
            await ledger.open()
            await ledger.mark_queued([], 0.0)  # a write of nothing: is it read-only?
        finally:
            await ledger.close()

    url = redact(settings.ledger)
    why = await _failure(try_it())
    if why is None:
        return ok("ledger", f"{url} answers, has this version's schema and can be written")
    remedy = (
        f"make {file_path(settings.ledger).parent} a folder that this user can write, or set DURE_HOME"
        if scheme(settings.ledger) == "sqlite"
        else "start PostgreSQL, and look at the host, user, password and database in DURE_LEDGER_URL"
    )
    return problem("ledger", f"{url}: {why}", remedy)


async def _broker(settings: Settings) -> Finding:
    from dure.client.connect import connect

    async def try_it() -> None:
        link = connect(settings)
        try:
            await link.open()
            await link.ping()
        finally:
            await link.close()

    url = redact(settings.broker)
    why = await _failure(try_it())
    if why is None:
        return ok("broker", f"{url} answers")
    remedy = (
        f"make {file_path(settings.broker).parent} a folder that this user can write, or set DURE_HOME"
        if scheme(settings.broker) == "dure"
        else "start RabbitMQ, and look at the host, user, password and vhost in DURE_BROKER_URL"
    )
    return problem("broker", f"{url}: {why}", remedy)


async def _results(settings: Settings) -> Finding:
    if settings.results is None:
        return ok("result backend", "none; workers of Dure send results in their events")
    url = redact(settings.results)
    if scheme(settings.results) == "dure":
        return ok("result backend", f"{url} is a file beside the broker")
    why = await _failure(_ping_redis(settings.results))
    if why is None:
        return ok("result backend", f"{url} answers")
    return problem("result backend", f"{url}: {why}", "start Redis, and look at DURE_RESULT_BACKEND; or unset it")


async def _ping_redis(url: str) -> None:
    from redis.asyncio import Redis

    redis: Redis = Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    try:
        await redis.ping()
    finally:
        await redis.aclose()


async def _failure(trying: Awaitable[None]) -> str | None:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await trying
    except TimeoutError:
        return f"no answer within {_PATIENCE_SECONDS:g} s"
    except DureError as exc:
        return str(getattr(exc, "detail", exc))
    except Exception as exc:  # a check reports whatever a driver raises
        return f"{type(exc).__name__}: {exc}".partition("\n")[0]
    return None
