"""Entries that were taken from their attempts, as messages: numbered, and as many to a message as it may hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from dure.entry import item, items_message
from dure.watch import in_messages
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


class _Part(NamedTuple):
    """Some entries of one attempt, numbered up to `last`."""

    attempt: Attempt
    item: bytes
    last: int
    entries: int
    size: int


def messages(taken: Iterable[tuple[Attempt, list[Pending]]]) -> Iterator[Message]:
    parts = (_numbered(attempt, *part) for attempt, pending in taken for part in _parts(pending))
    for group in _groups(parts):
        rest = iter(group)
        for items, keys in in_messages((part.item, part.attempt.keys) for part in group):
            its_parts = list(islice(rest, len(items)))
            yield Message(
                body=items_message(items),
                keys=keys,
                lasts=[(part.attempt, part.last) for part in its_parts],
                entries=sum(part.entries for part in its_parts),
                size=sum(part.size for part in its_parts),
            )


def _numbered(attempt: Attempt, pending: list[Pending], size: int) -> _Part:
    first = attempt.numbered + 1
    attempt.numbered += len(pending)
    return _Part(attempt, item(attempt.head, first, pending), attempt.numbered, len(pending), size)


def _parts(pending: list[Pending]) -> Iterator[tuple[list[Pending], int]]:
    """One attempt's entries and their size, by what a message may hold."""
    part: list[Pending] = []
    size = 0
    for entry in pending:
        if part and (size + len(entry.body) > _BYTES or len(part) >= _ENTRIES):
            yield part, size
            part, size = [], 0
        part.append(entry)
        size += len(entry.body) + OVERHEAD
    if part:
        yield part, size


def _groups(parts: Iterator[_Part]) -> Iterator[list[_Part]]:
    """Several attempts' parts, by what a message may hold."""
    group: list[_Part] = []
    size = entries = 0
    for part in parts:
        if group and (size + part.size > _BYTES or entries + part.entries > _ENTRIES):
            yield group
            group, size, entries = [], 0, 0
        group.append(part)
        size += part.size
        entries += part.entries
    if group:
        yield group
