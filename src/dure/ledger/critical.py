"""The chain of nodes that a workflow's length comes from."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import TopologicalSorter

from msgspec import Struct


class Step(Struct, frozen=True, kw_only=True):
    """A node that has ended after running for `seconds`; `is_shown` is false for one that another of its name shows."""

    id: str
    name: str
    seconds: float
    needs: tuple[str, ...] = ()
    is_shown: bool = True


def critical_path(steps: Sequence[Step]) -> tuple[tuple[str, ...], float]:
    """The names along the longest chain of needs, first to last, and its seconds. Needs that are no steps are left
    out."""
    by_id = {step.id: step for step in steps}
    graph = {step.id: [need for need in step.needs if need in by_id] for step in steps}
    longest: dict[str, tuple[float, int]] = {}  # of two chains that took as long, the one of more nodes
    before: dict[str, str | None] = {}
    for job_id in TopologicalSorter(graph).static_order():
        need = max(graph[job_id], key=longest.__getitem__, default=None)
        seconds, length = longest[need] if need is not None else (0.0, 0)
        before[job_id] = need
        longest[job_id] = (seconds + by_id[job_id].seconds, length + 1)
    if not longest:
        return (), 0.0
    at: str | None = max(longest, key=longest.__getitem__)
    seconds = longest[at][0] if at is not None else 0.0
    chain = []
    while at is not None:
        chain.append(by_id[at])
        at = before[at]
    return tuple(step.name for step in reversed(chain) if step.is_shown), round(seconds, 6)
