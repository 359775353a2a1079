"""Entries that were taken from their attempts, as messages: numbered, and as many to a message as it may hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from msgspec import Raw

from dure.entry import Entry, Told, entries_message
from dure.watch import in_messages, watch_keys
from dure.worker.live.attempt import Attempt, Pending

OVERHEAD = 64  # of an entry, beside its body

_BYTES = 262_144
_ENTRIES = 1000


@dataclass(slots=True)
class Message:
    body: bytes
    keys: list[str]
    lasts: list[tuple[Attempt, int]]  # up to which of an attempt's entries it tells
    entries: int
    size: int
    is_sent: bool = False


def messages(taken: Iterable[tuple[Attempt, list[Pending]]]) -> Iterator[Message]:
    parts = (_numbered(attempt, part) for attempt, pending in taken for part in _parts(pending))
    for group in _groups(parts):
        rest = iter(group)
        items = ((_item(told), watch_keys(told.job_id, told.task, told.root_id)) for _, told, _ in group)
        for bodies, keys in in_messages(items):
            its_parts = list(islice(rest, len(bodies)))
            yield Message(
                body=b"[" + b",".join(bodies) + b"]",
                keys=keys,
                lasts=[(attempt, told.last.n) for attempt, told, _ in its_parts],
                entries=sum(len(told.entries) for _, told, _ in its_parts),
                size=sum(size for _, _, size in its_parts),
            )


def _numbered(attempt: Attempt, part: list[Pending]) -> tuple[Attempt, Told, int]:
    first = attempt.numbered + 1
    attempt.numbered += len(part)
    entries = tuple(
        Entry(n=n, at=pending.at, kind=pending.kind, body=Raw(pending.body)) for n, pending in enumerate(part, first)
    )
    told = Told(
        job_id=attempt.job_id,
        run=attempt.run,
        entries=entries,
        task=attempt.task,
        root_id=attempt.root_id,
        worker=attempt.worker,
        is_first=attempt.is_first,
    )
    return attempt, told, sum(len(pending.body) + OVERHEAD for pending in part)


def _item(told: Told) -> bytes:
    return entries_message([told])[1:-1]  # out of its list


def _parts(pending: list[Pending]) -> Iterator[list[Pending]]:
    """One attempt's entries, by what a message may hold."""
    part: list[Pending] = []
    size = 0
    for entry in pending:
        if part and (size + len(entry.body) > _BYTES or len(part) >= _ENTRIES):
            yield part
            part, size = [], 0
        part.append(entry)
        size += len(entry.body) + OVERHEAD
    if part:
        yield part


def _groups(items: Iterator[tuple[Attempt, Told, int]]) -> Iterator[list[tuple[Attempt, Told, int]]]:
    """Several attempts' parts, by what a message may hold."""
    group: list[tuple[Attempt, Told, int]] = []
    size = entries = 0
    for item in items:
        if group and (size + item[2] > _BYTES or entries + len(item[1].entries) > _ENTRIES):
            yield group
            group, size, entries = [], 0, 0
        group.append(item)
        size += item[2]
        entries += len(item[1].entries)
    if group:
        yield group
