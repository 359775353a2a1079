"""What a task tells while it runs: progress, output and log lines, each with its place in the order.

The entries of one attempt are numbered from 1 without a gap, where they are made. `run` is when the attempt began, in
microseconds, so a later attempt's entries are above an earlier one's. Reader, broker and ledger agree on an entry's
place without asking each other, which is what lets a reader resume anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

Number = Annotated[int, Meta(ge=0, le=2**62)]  # what both databases hold; read from outside it is checked


class EntryKind(StrEnum):
    PROGRESS = "progress"
    OUTPUT = "output"
    LOG = "log"


class Position(NamedTuple):
    """An entry's place among those of its job."""

    run: Number = 0
    n: Number = 0


class Entry(Struct, frozen=True, kw_only=True, array_like=True):
    """`body` is JSON: of progress an object of `current`, `total`, `message` and what else was told; of output the
    chunk; of a log line an object of `level`, `logger` and `message`."""

    n: Number
    at: float
    kind: EntryKind
    body: Any


class Told(Struct, frozen=True, kw_only=True):
    """Entries of one attempt, one after another without a gap; `root_id` is the workflow where the job is a node.

    `is_first` is true where the job is sure to have had no attempt before: a reader need not look for its entries.
    """

    job_id: str
    run: int
    entries: tuple[Entry, ...]
    task: str | None = None
    root_id: str | None = None
    worker: str | None = None
    is_first: bool = False

    @property
    def first(self) -> Position:
        return Position(self.run, self.entries[0].n)

    @property
    def last(self) -> Position:
        return Position(self.run, self.entries[-1].n)


class _Head(Struct, tag_field="type", tag="dure-entries", kw_only=True, omit_defaults=True):
    uuid: Annotated[str, Meta(min_length=1, max_length=255)]
    run: Number
    task: str | None = None
    root_id: str | None = None
    hostname: str | None = None
    first: bool = False


class _Item(_Head, tag_field="type", tag="dure-entries", kw_only=True, omit_defaults=True):
    """How they travel: one event of a message, in the words of Celery's events."""

    entries: tuple[Entry, ...]
    timestamp: float

    def told(self) -> Told | None:
        first = self.entries[0].n if self.entries else 0
        if not self.run or first < 1 or any(entry.n != n for n, entry in enumerate(self.entries, first)):
            return None
        return Told(
            job_id=self.uuid,
            run=self.run,
            entries=self.entries,
            task=self.task,
            root_id=self.root_id,
            worker=self.hostname,
            is_first=self.first,
        )


_BEGIN = b'[{"type":"dure-entries"'
_decode = msgspec.json.Decoder(list[_Item]).decode
_KINDS = {kind: kind.value.encode() for kind in EntryKind}


def entries_message(tolds: Iterable[Told]) -> bytes:
    """The body of one message; an entry's body may be JSON that is encoded already (`msgspec.Raw`)."""
    return msgspec.json.encode(
        [
            _Item(
                uuid=told.job_id,
                run=told.run,
                entries=told.entries,
                timestamp=told.entries[-1].at,
                task=told.task,
                root_id=told.root_id,
                hostname=told.worker,
                first=told.is_first,
            )
            for told in tolds
        ]
    )


def item_head(
    job_id: str,
    run: int,
    *,
    task: str | None = None,
    root_id: str | None = None,
    worker: str | None = None,
    is_first: bool = False,
) -> bytes:
    """What all items of an attempt begin with, so that each takes a fraction of the time that encoding it does."""
    return msgspec.json.encode(
        _Head(uuid=job_id, run=run, task=task, root_id=root_id, hostname=worker, first=is_first)
    ).removesuffix(b"}")


def item(head: bytes, first: int, entries: Sequence[tuple[float, EntryKind, bytes]]) -> bytes:
    """One item of a message: entries of which each has its time, kind and body, numbered from `first`."""
    told = b",".join(
        b'[%d,%.6f,"%b",%b]' % (n, at, _KINDS[kind], body) for n, (at, kind, body) in enumerate(entries, first)
    )
    return b'%b,"timestamp":%.6f,"entries":[%b]}' % (head, entries[-1][0], told)


def items_message(items: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def read_entries(body: bytes) -> list[Told]:
    """What one message of `entries_message` holds; nothing of one of another kind, or that cannot be read."""
    if not body.startswith(_BEGIN):
        return []
    try:
        return [told for item in _decode(body) if (told := item.told())]
    except (msgspec.MsgspecError, RecursionError):
        return []


def read_told(fields: dict[str, Any]) -> Told | None:
    """One item of a message that was decoded already; raises ValidationError where it is none."""
    return msgspec.convert(fields, _Item).told()
