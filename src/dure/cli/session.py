"""What a command asks of the ledger or the broker, in one short asyncio run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from dure.errors import LedgerUnavailable
from dure.url import file_path, scheme

if TYPE_CHECKING:
    from dure.client import Dure
    from dure.ledger import Ledger
    from dure.settings import Settings

Answer = TypeVar("Answer")


def ask_ledger(settings: Settings, ask: Callable[[Ledger], Awaitable[Answer]]) -> Answer:
    """Raises LedgerUnavailable; does without the broker."""
    from dure.cli import logs
    from dure.ledger import Ledger

    async def session() -> Answer:
        ledger = Ledger(settings.ledger, pool_size=2)
        try:
            await ledger.open()
            return await ask(ledger)
        finally:
            await ledger.close()

    logs.quiet()
    _require_ledger(settings)
    return asyncio.run(session())


def ask_dure(settings: Settings, ask: Callable[[Dure], Awaitable[Answer]], *, create: bool = False) -> Answer:
    """`create` makes an embedded ledger that is not there."""
    from dure.cli import logs
    from dure.client import Dure

    async def session() -> Answer:
        async with Dure(settings) as dure:
            return await ask(dure)

    logs.quiet()
    if not create:
        _require_ledger(settings)
    return asyncio.run(session())


def _require_ledger(settings: Settings) -> None:
    """A question asked in the wrong folder would else make an empty ledger there, and answer from it."""
    if scheme(settings.ledger) == "sqlite" and not file_path(settings.ledger).exists():
        raise LedgerUnavailable(f"there is none at {file_path(settings.ledger)}; `dure up` or `dure serve` makes it")
