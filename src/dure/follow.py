"""Following one job: what the ledger keeps and what the broker pushes, made one feed. Pure: no clock, no I/O.

A push comes at once, but may be lost, repeated or late; the ledger has everything, a moment later. So:

- An entry that is next in its attempt is given, whoever told it; one that was seen is left out. One further on is held,
  and the ledger is asked for what is between, until it has it.
- The first entry of an attempt is given when nothing of an earlier one can be missing: it is the job's first attempt,
  or the ledger shows entries of it too.
- Where the ledger has entries behind a gap, and the gap stays, what was in it is lost, and a `dropped` says so.
- A state is given when its place is above that of the last one: more attempts, then further within one. The end is
  above all, and is told by the `result` alone.
- The result comes last. An end that was pushed is given at once where entries were pushed before it, or the reader has
  been there for some seconds: in its queue the end comes behind the entries. An end that the ledger tells is given a
  moment later, for several recorders share the work; and later still where something is known to be missing. Dure's
  workers tell with an attempt's end the place of its last entry: either end waits for that one, and no longer.

What a reader has seen is its cursor, `<place>.<run>.<n>`, the id of each event: a feed goes on from there anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Self

from dure.entry import Entry, Position, Told
from dure.errors import InvalidCursor
from dure.event import JobEvent, fold
from dure.feed import FeedEvent
from dure.feed_events import dropped_event, entry_event, result_event, state_event, where_of
from dure.job import Job, State

END = 1 << 40
QUIET_SECONDS = 0.1
SETTLE_SECONDS = 0.3
GAP_SECONDS = 2.0
HOLE_SECONDS = 5.0

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
# What was told just before this reader began to listen, the ledger may record just after it was asked.
_UNHEARD_PAUSE = 0.05
_UNHEARD_ASKS = 4
_HELD = 2_000
_HELD_BYTES = 1_048_576

_RANKS = {state: rank for rank, state in enumerate(State, 1)}
_CURSOR = re.compile(r"(\d{1,13})\.(\d{1,18})\.(\d{1,18})", re.ASCII)


class Cursor(NamedTuple):
    """All that a reader of a job's feed has seen."""

    place: int = 0
    seen: Position = Position()

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Raises InvalidCursor; None and "" are the beginning."""
        if not text:
            return cls()
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise InvalidCursor(text)
        place, run, n = map(int, found.groups())
        return cls(place, Position(run, n))

    def __str__(self) -> str:
        return f"{self.place}.{self.seen.run}.{self.seen.n}"


def place_of(job: Job) -> int:
    return END if job.state.final else job.attempts << 3 | _RANKS[job.state]


class Follow:
    """One reader's way through one job. `job` is its record, as the ledger has it; times are of one clock."""

    def __init__(self, job: Job, after: Cursor = Cursor()) -> None:  # noqa: B008 - it is frozen
        self.job = job
        self.place, self.seen = after
        self.over = after.place >= END
        self._where = where_of(job)
        self._held: dict[Position, Entry] = {}
        self._held_bytes = 0
        self._missed = Position()  # pushed, and not held
        self._kept = Position()  # the last that the ledger has shown
        self._hole_since: float | None = None
        self._end_since: float | None = None
        self._end_pushed = False
        self._is_whole = False  # whether a push, or its absence, tells what was missed before it
        self._first_run = 0  # where it is known
        self._asks = True
        self._asks_again = _UNHEARD_ASKS
        self._more = False
        self._dropped = 0
        self._fruitless = 0

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.place, self.seen)

    @property
    def pause(self) -> float | None:
        """In how many seconds the ledger is to be asked; None while nothing is missing."""
        if self.over:
            return None
        if self._more or (self._asks and not self._fruitless):
            return 0.0
        if not (self._asks or self._held or self._missed > self.seen or self.job.state.final):
            return _UNHEARD_PAUSE * 3 ** (_UNHEARD_ASKS - self._asks_again) if self._asks_again else None
        return min(_FIRST_PAUSE * 1.6 ** min(self._fruitless, 20), _LONGEST_PAUSE)

    def begin(self) -> list[FeedEvent]:
        """What is known before anything is asked."""
        events: list[FeedEvent] = []
        self._tell_state(events)
        return events

    def ask(self) -> None:
        """The ledger knows more than was pushed."""
        self._asks = True
        self._fruitless = 0

    def lost(self) -> None:
        """Pushes may have been lost. The next one tells where they go on; an end alone would not."""
        self._is_whole = False
        self._asks_again = _UNHEARD_ASKS
        self.ask()

    def miss(self, told: Told) -> None:
        """This was pushed, and is not kept here."""
        self._missed = max(self._missed, told.last)
        self.ask()

    def read(
        self,
        job: Job,
        told: Sequence[Told],
        *,
        now: float,
        dropped: int = 0,
        more: bool = False,
        last: Position = Position(),  # noqa: B008 - it is frozen
        complete: bool = False,
    ) -> list[FeedEvent]:
        """What the ledger answers: the record, and after it what is kept behind `seen`. `last` is the place of the
        last entry, as far as it is known; `complete` says that with this end all entries are recorded."""
        if self.over:
            return []
        events: list[FeedEvent] = []
        self._asks_again = max(0, self._asks_again - (not self._asks))
        self._is_whole = self._is_whole or not self._asks_again  # by now all that was told before is recorded
        self._asks, self._more = False, more
        if place_of(job) >= place_of(self.job):
            self.job, self._where = job, where_of(job)
        self._tell_state(events)
        self._tell_dropped(events, told, dropped)
        for each in told:
            for entry in each.entries:
                place = Position(each.run, entry.n)
                self._kept = max(self._kept, place)
                if place > self.seen:
                    self._held[place] = entry
        self._give_held(events)
        if not more:
            self._close_hole(events, now)
            if job.state.final:
                self._end_since = now if self._end_since is None else self._end_since
                since = min(job.finished_at or now, self._end_since)
                self._missed = max(self._missed, last)
                settle = SETTLE_SECONDS if self.seen.run else QUIET_SECONDS
                if self._held or self._missed > self.seen:
                    settle = GAP_SECONDS
                if complete or not job.attempts or now - since >= settle:
                    while self._held:
                        self._skip(events)
                    self._tell_end(events)
            elif self.job.state.final:
                self._asks = not self._end_pushed  # the end's value is still to be recorded
        self._end_if_pushed(events)
        self._fruitless = 0 if events else self._fruitless + 1
        return events

    def push(self, told: Told, size: int = 0) -> list[FeedEvent]:
        """`size` in bytes: what is held is bounded."""
        events: list[FeedEvent] = []
        if self.over or told.last <= self.seen:  # a repeat says nothing of what came between
            return events
        self._is_whole = True
        if told.is_first:
            self._first_run = told.run
        if self.job.state is State.STARTED:  # else that was told before
            self._asks_again = 0
        if not self._held and told.run == self.seen.run and told.entries[0].n <= self.seen.n + 1:
            for entry in told.entries:
                if entry.n > self.seen.n:
                    self._give(events, told.run, entry)
        elif len(self._held) >= _HELD or self._held_bytes >= _HELD_BYTES:
            self.miss(told)
        else:
            if not self._held:
                self._fruitless = 0
            self._held_bytes += size
            for entry in told.entries:
                place = Position(told.run, entry.n)
                if place > self.seen:
                    self._held[place] = entry
            self._give_held(events)
        self._end_if_pushed(events)
        return events

    def happen(self, event: JobEvent) -> list[FeedEvent]:
        """A push of a state."""
        events: list[FeedEvent] = []
        if self.over:
            return events
        self.job = fold(self.job, event)
        if event.told is not None and event.told > self.seen:
            self._missed = max(self._missed, event.told)
            self.ask()
        if self._is_whole:
            self._asks_again = 0
        if event.state.final:
            self._fruitless = 0
            if event.state is State.SUCCESS and not event.has_result:
                self._asks = True
                self._fruitless = 1  # the ledger looks for the value first
            elif event.told is not None or (self._is_whole and self.job.attempts <= 1):
                self._end_pushed = True  # where an attempt before told something, its last entries may be on their way
            else:
                self._asks = True
        self._tell_state(events)
        self._end_if_pushed(events)
        return events

    def _tell_state(self, events: list[FeedEvent]) -> None:
        place = place_of(self.job)
        if self.place < place < END:
            self.place = place
            events.append(state_event(str(self.cursor), self.job))

    def _tell_dropped(self, events: list[FeedEvent], told: Sequence[Told], dropped: int) -> None:
        """The oldest entries are gone, so what the ledger has now is what comes next."""
        first = told[0].first if told else self.seen
        if dropped and (first.run > self.seen.run or (first.n > self.seen.n + 1 and first.run == self.seen.run)):
            self.seen = Position(first.run, first.n - 1)
            self._dropped = 0
        elif told or dropped <= self._dropped:
            return
        else:  # all are gone; said once, for there is no place behind them
            dropped, self._dropped = dropped - self._dropped, dropped
        events.append(self._dropped_event(dropped))

    def _dropped_event(self, entries: int) -> FeedEvent:
        return dropped_event(str(self.cursor), self.job.id, entries, self.job.changed_at, self._where)

    def _next(self, run: int) -> Position:
        return Position(run, self.seen.n + 1 if run == self.seen.run else 1)

    def _give(self, events: list[FeedEvent], run: int, entry: Entry) -> None:
        self.seen = Position(run, entry.n)
        events.append(entry_event(f"{self.place}.{run}.{entry.n}", self.job.id, entry, self._where))

    def _give_held(self, events: list[FeedEvent]) -> None:
        held = self._held
        while held:
            place = self._next(self.seen.run)
            if place not in held:
                place = min(held)
                if place <= self.seen:
                    del held[place]
                    continue
                if place != self._next(place.run) or not self._may_begin(place.run):
                    break
            self._give(events, place.run, held.pop(place))
        if not held:
            self._held_bytes = 0
        if events:
            self._hole_since = None

    def _may_begin(self, run: int) -> bool:
        return run <= self._kept.run or (not self.seen.run and run == self._first_run)

    def _close_hole(self, events: list[FeedEvent], now: float) -> None:
        """Several recorders may commit out of order, but not by much."""
        if self._kept <= self.seen:
            self._hole_since = None
        elif self._hole_since is None:
            self._hole_since = now
        elif now - self._hole_since >= HOLE_SECONDS:
            self._skip(events)

    def _skip(self, events: list[FeedEvent]) -> None:
        """Go on behind the gap."""
        first = min(self._held)
        if missing := first.n - self._next(first.run).n:
            self.seen = Position(first.run, first.n - 1)
            events.append(self._dropped_event(missing))
        self._give(events, first.run, self._held.pop(first))
        self._give_held(events)

    def _end_if_pushed(self, events: list[FeedEvent]) -> None:
        if self._end_pushed and not self._held and self._missed <= self.seen:
            self._tell_end(events)

    def _tell_end(self, events: list[FeedEvent]) -> None:
        if self.over:
            return
        self.place, self.over = END, True
        events.append(result_event(str(self.cursor), self.job))
