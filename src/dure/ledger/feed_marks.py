"""What the ledger knows of the entries of one job: which it was told, which it keeps, which are gone; pure.

Batches come again after a crash, overlap, and are shared by several recorders, so a later one may be recorded first.
What was told is therefore kept as ranges, mostly one for each attempt, and only what is in none of them is new. The
oldest entries go first, so what is gone is all that was told up to one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec
from msgspec import Struct, structs

from dure.entry import Entry, Position, Told

_MOST_RANGES = 500  # below them all counts as told: a job that is tried again for ever needs no more of them
_SEGMENT = 256
_SEGMENT_BYTES = 65_536


class Limits(Struct, frozen=True, kw_only=True):
    """The most that is kept of one job."""

    entries: int = 10_000
    size: int = 1_048_576


class Range(NamedTuple):
    """Entries of one attempt without a gap."""

    run: int
    first: int
    last: int

    @property
    def length(self) -> int:
        return self.last - self.first + 1

    @property
    def end(self) -> Position:
        return Position(self.run, self.last)


class Segment(Struct, frozen=True, kw_only=True):
    """Entries that are one row; `seq` where it is written already. `body` is the JSON of the entries."""

    range: Range
    size: int
    seq: int | None = None
    body: str | None = None


class Marks(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`told` are the ranges in their order, and above `floor`; what is not above `gone` is dropped. `entries` and
    `size` are of what is kept. `lasts` are the places of the last entries of attempts, as their closing events tell
    them, and `ended` says that one of these was the job's end."""

    entries: int = 0
    size: int = 0
    dropped: int = 0
    gone: Position = Position()
    floor: Position = Position()
    told: tuple[Range, ...] = ()
    lasts: tuple[Position, ...] = ()
    ended: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether the job has ended, and all was told that it is known to have told."""
        whole = {each.run: each.last for each in self.told if each.first == 1}
        return self.ended and all(place <= self.floor or whole.get(place.run, 0) >= place.n for place in self.lasts)

    def with_last(self, place: Position, *, ended: bool) -> Marks:
        lasts = sorted({*self.lasts, place})[-_MOST_RANGES:]
        return structs.replace(self, lasts=tuple(lasts), ended=self.ended or ended)

    def count_above(self, place: Position) -> int:
        """How many entries above it were told."""
        return sum(
            each.last - max(each.first, place.n + 1 if each.run == place.run else 0) + 1
            for each in self.told
            if each.end > place
        )

    def unknown(self, entries: Mapping[Position, Entry]) -> dict[Position, Entry]:
        """Those of these that were not told before."""
        return {place: each for place, each in sorted(entries.items()) if place > self.floor and not self._has(place)}

    def _has(self, place: Position) -> bool:
        return any(each.run == place.run and each.first <= place.n <= each.last for each in self.told)

    def with_told(self, segments: Sequence[Segment]) -> Marks:
        told = _joined([*self.told, *(each.range for each in segments)])
        floor = self.floor
        if len(told) > _MOST_RANGES:
            floor = told[-_MOST_RANGES - 1].end
            told = told[-_MOST_RANGES:]
        return structs.replace(
            self,
            entries=self.entries + sum(each.range.length for each in segments),
            size=self.size + sum(each.size for each in segments),
            told=tuple(told),
            floor=floor,
        )

    def without(self, segments: Sequence[Segment]) -> Marks:
        """These are dropped, and with them the place of whatever is below."""
        if not segments:
            return self
        count = sum(each.range.length for each in segments)
        return structs.replace(
            self,
            entries=self.entries - count,
            size=self.size - sum(each.size for each in segments),
            dropped=self.dropped + count,
            gone=max(self.gone, *(each.range.end for each in segments)),
        )

    def dropped_between(self, after: Position, before: Position | None) -> int:
        """How many entries above the one place and below the other are dropped."""
        if after == Position() and (before is None or before > self.gone):
            return self.dropped
        count = 0
        for each in self.told:
            first = max(each.first, after.n + 1) if each.run == after.run else each.first
            last = each.last
            if each.run == self.gone.run:
                last = min(last, self.gone.n)
            if before is not None and each.run == before.run:
                last = min(last, before.n - 1)
            is_between = after.run <= each.run <= self.gone.run and (before is None or each.run <= before.run)
            count += max(0, last - first + 1) if is_between else 0
        return count

    def is_over(self, limits: Limits) -> bool:
        return self.entries > limits.entries or self.size > limits.size


def surplus(marks: Marks, segments: Iterable[Segment], limits: Limits) -> list[Segment]:
    """The oldest of these, which are all that is kept: with them a tenth more than has to go, so that few batches have
    any to drop; and whatever is told so late that what follows it is gone already."""
    entries, size = marks.entries, marks.size
    is_over = marks.is_over(limits)
    most = Limits(entries=limits.entries * 9 // 10, size=limits.size * 9 // 10)
    gone = []
    for each in sorted(segments, key=attrgetter("range")):
        if each.range.end > marks.gone and not (is_over and (entries > most.entries or size > most.size)):
            break
        gone.append(each)
        entries -= each.range.length
        size -= each.size
    return gone


def segments_of(entries: Mapping[Position, Entry], limits: Limits) -> list[Segment]:
    """In rows so small that a row is but a part of what may be kept."""
    most = max(1, min(_SEGMENT, limits.entries // 10))
    most_bytes = max(1, min(_SEGMENT_BYTES, limits.size // 10))
    made: list[Segment] = []
    texts: list[bytes] = []
    places: list[Position] = []
    size = 0
    for place, entry in sorted(entries.items()):
        text = msgspec.json.encode(entry)
        is_next = bool(places) and place == (places[-1].run, places[-1].n + 1)
        if places and not (is_next and len(places) < most and size + len(text) <= most_bytes):
            made.append(_segment(places, texts))
            places, texts, size = [], [], 0
        places.append(place)
        texts.append(text)
        size += len(text)
    return [*made, _segment(places, texts)] if places else made


def _segment(places: Sequence[Position], texts: Sequence[bytes]) -> Segment:
    body = b"[" + b",".join(texts) + b"]"
    return Segment(range=Range(places[0].run, places[0].n, places[-1].n), size=len(body), body=body.decode())


def entries_by_job(told: Iterable[Told]) -> dict[str, dict[Position, Entry]]:
    """Of an entry that is there twice the first."""
    found: dict[str, dict[Position, Entry]] = {}
    for each in told:
        its = found.setdefault(each.job_id, {})
        for entry in each.entries:
            if entry.n > 0:
                its.setdefault(Position(each.run, entry.n), entry)
    return found


def _joined(ranges: Iterable[Range]) -> list[Range]:
    joined: list[Range] = []
    for each in sorted(ranges):
        if joined and joined[-1].run == each.run and each.first <= joined[-1].last + 1:
            joined[-1] = joined[-1]._replace(last=max(joined[-1].last, each.last))
        else:
            joined.append(each)
    return joined
