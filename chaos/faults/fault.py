from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chaos.systems import System

Inject = Callable[[System, int], Awaitable[None]]
"""One blow, the `int`th of its cell; returns when it is over. Dead processes are started again by the keeper."""
WhyNot = Callable[[type[System]], str | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to make trouble. `why_not` says why a system cannot have it, or None."""

    name: str
    does: str
    inject: Inject
    why_not: WhyNot
    proxied: bool = False
    small_disk: bool = False


def always(system: type[System]) -> str | None:
    return None


def needs_server(kind: str) -> WhyNot:
    def why_not(system: type[System]) -> str | None:
        return None if kind in system.kinds else f"has no {kind}"

    return why_not


def needs_files(system: type[System]) -> str | None:
    return None if system.files else "has no SQLite files"
