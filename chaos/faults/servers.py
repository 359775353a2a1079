"""Faults of the servers. They are durable: RabbitMQ keeps what it confirmed, PostgreSQL runs with fsync, and Redis with
`appendonly yes` and its default `appendfsync everysec`. A killed process loses nothing that it had written, since the
machine's page cache stays.
"""

from __future__ import annotations

import asyncio

from chaos.faults.fault import Fault, Inject, needs_server
from chaos.systems import System

AWAY_SECONDS = 1.0


def _kill(kind: str) -> Inject:
    async def inject(system: System, turn: int) -> None:
        server = system.servers[kind]
        try:
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(AWAY_SECONDS)
        finally:
            await asyncio.to_thread(server.start)

    return inject


def _restart(kind: str) -> Inject:
    async def inject(system: System, turn: int) -> None:
        await asyncio.to_thread(system.servers[kind].restart)

    return inject


_TITLES = {"rabbitmq": "RabbitMQ", "postgres": "PostgreSQL", "redis": "Redis"}


def _killed(kind: str) -> Fault:
    does = f"SIGKILL to {_TITLES[kind]}; started again after {AWAY_SECONDS:g} s"
    return Fault(f"{kind}-kill", does, _kill(kind), needs_server(kind))


def _restarted(kind: str) -> Fault:
    return Fault(f"{kind}-restart", f"{_TITLES[kind]} stopped politely and started", _restart(kind), needs_server(kind))


FAULTS = [_killed("rabbitmq"), _restarted("rabbitmq"), _killed("postgres"), _restarted("postgres"), _killed("redis")]
