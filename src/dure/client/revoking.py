"""Cancelled jobs, cut into messages of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dure.revocation import Revocation

_AT_ONCE = 500


def portions(ids: Sequence[str], *, terminate: bool, at: float) -> list[Revocation]:
    return [
        Revocation(ids=tuple(ids[start : start + _AT_ONCE]), terminate=terminate, at=at)
        for start in range(0, len(ids), _AT_ONCE)
    ]


def orders(portions: Sequence[Revocation]) -> Iterator[dict[str, Any]]:
    """The arguments of Celery's `revoke`, which running workers obey at once."""
    for portion in portions:
        yield {"task_id": list(portion.ids), "terminate": portion.terminate, "signal": "SIGTERM"}
