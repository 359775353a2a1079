"""What needs what, as a graph of names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def cycle(needs: Mapping[str, Iterable[str]]) -> list[str] | None:
    """Names of which each needs the next, from one back to itself; None where there are none. Without recursion."""
    unmet = {name: {need for need in needed if need in needs} for name, needed in needs.items()}
    followers: dict[str, list[str]] = {name: [] for name in needs}
    for name, needed in unmet.items():
        for need in needed:
            followers[need].append(name)
    open_needs = {name: len(needed) for name, needed in unmet.items()}
    ready = [name for name, count in open_needs.items() if not count]
    while ready:
        name = ready.pop()
        del open_needs[name]
        for follower in followers[name]:
            open_needs[follower] -= 1
            if not open_needs[follower]:
                ready.append(follower)
    if not open_needs:
        return None
    # Each that is left needs another that is left, so going on from one to the next comes back to one seen before.
    at = next(iter(open_needs))
    seen: dict[str, int] = {}
    walk: list[str] = []
    while at not in seen:
        seen[at] = len(walk)
        walk.append(at)
        at = next(need for need in sorted(unmet[at]) if need in open_needs)
    return [*walk[seen[at] :], at]
