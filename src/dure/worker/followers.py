"""What will not be run, because the task before it did not succeed: the rest of a chain, and the body of a chord.

Celery marks them in its result backend and sends no event. With one they end in the ledger as well: jobs of plain
Celery code, and a job that replaced itself by such a chain or chord, whose id the last of its tasks has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple


class Follower(NamedTuple):
    job_id: str
    task: str | None


def followers(embed: Any) -> list[Follower]:
    """Those that a message's third part names; what is no signature is passed over."""
    if not isinstance(embed, Mapping):
        return []
    return list(_within([*(embed.get("chain") or ()), embed.get("chord")]))


def _within(signatures: Iterable[Any]) -> Iterator[Follower]:
    for signature in signatures:
        if not isinstance(signature, Mapping):
            continue
        inner = signature.get("kwargs") if signature.get("subtask_type") in ("chain", "group", "chord") else None
        if isinstance(inner, Mapping):
            yield from _within([*(inner.get("tasks") or ()), *(inner.get("header") or ()), inner.get("body")])
            continue
        options = signature.get("options")
        job_id = options.get("task_id") if isinstance(options, Mapping) else None
        if isinstance(job_id, str):
            yield Follower(job_id, signature.get("task"))
