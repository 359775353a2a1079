"""Faults of the lines between the system's processes and its servers."""

from __future__ import annotations

import asyncio

from chaos import isolation, network
from chaos.faults.fault import Fault
from chaos.systems import System

LOSSES = (10, 20, 30)
BAD_SECONDS = 5.0
DELAY, SPREAD = 0.2, 0.1


async def _drop(system: System, turn: int) -> None:
    with system.network.losing(LOSSES[turn % len(LOSSES)]):
        await asyncio.sleep(BAD_SECONDS)


async def _cut(system: System, turn: int) -> None:
    with system.network.losing(100):
        await asyncio.sleep(BAD_SECONDS)


async def _delay(system: System, turn: int) -> None:
    with system.network.delaying(DELAY, SPREAD):
        await asyncio.sleep(BAD_SECONDS)


def _has_lines(system: type[System]) -> str | None:
    return None if system.kinds else "has no server"


def _can_drop(system: type[System]) -> str | None:
    return _has_lines(system) or isolation.missing() or network.missing()


_losses = ", ".join(map(str, LOSSES))
_delays = f"{DELAY * 1000:g} ms ± {SPREAD * 1000:g} ms each way"

FAULTS = [
    Fault("network-drop", f"{_losses} % of the packets lost for {BAD_SECONDS:g} s, in turns", _drop, _can_drop),
    Fault("network-delay", f"{_delays} for {BAD_SECONDS:g} s, by a proxy", _delay, _has_lines, proxied=True),
    Fault("network-cut", f"every packet lost for {BAD_SECONDS:g} s", _cut, _can_drop),
]
