"""Faults of the system's own processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chaos.faults.fault import Fault, always
from chaos.processes import Process
from chaos.systems import System

FROZEN_SECONDS = 15.0


async def _do_nothing(system: System, turn: int) -> None:
    return


async def _kill_worker(system: System, turn: int) -> None:
    await _kill(_some(system.workers, turn))


async def _kill_gateway(system: System, turn: int) -> None:
    await _kill(_some(system.gateways, turn))


async def _kill_recorders(system: System, turn: int) -> None:
    await _kill(system.gateways)


async def _freeze_worker(system: System, turn: int) -> None:
    worker = system.workers[turn % len(system.workers)]
    worker.freeze()
    try:
        await asyncio.sleep(FROZEN_SECONDS)
    finally:
        worker.thaw()


def _some(processes: Sequence[Process], turn: int) -> Sequence[Process]:
    """One after the other, and then all at once."""
    turn %= len(processes) + 1
    return processes if turn == len(processes) else processes[turn : turn + 1]


async def _kill(processes: Sequence[Process]) -> None:
    await asyncio.gather(*(asyncio.to_thread(process.kill) for process in processes))


def _has_recorders(system: type[System]) -> str | None:
    if not system.name.startswith("dure"):
        return "has no recorder"
    return None if system.gateway_count > 1 else "the same as gateway-kill: there is one"


FAULTS = [
    Fault("none", "nothing: what the load alone does, as the measure of the rest", _do_nothing, always),
    Fault("worker-kill", "SIGKILL to a worker and its children; in turns, then to both", _kill_worker, always),
    Fault("worker-stop", f"SIGSTOP to a worker for {FROZEN_SECONDS:g} s, then SIGCONT", _freeze_worker, always),
    Fault("gateway-kill", "SIGKILL to a web process; in turns, then to all", _kill_gateway, always),
    Fault(
        "recorder-kill",
        "SIGKILL to every `dure serve` at once: no gateway, recorder, relay or sweeper is left",
        _kill_recorders,
        _has_recorders,
    ),
]
