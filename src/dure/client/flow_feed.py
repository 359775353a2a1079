"""The feed of a workflow: the ledger's own log of it, in the order of its commits; a push only wakes the reader.

A row of the log may be several entries. The id of an event is the number of its row; of an entry that is not the last
of its row it also says which it is, `42.1`. The id of the result is `42.end`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy.exc import SQLAlchemyError

from dure.client.mailbox import Mailbox, Push
from dure.entry import Entry
from dure.errors import InvalidCursor, LedgerUnavailable
from dure.feed import FeedEvent, FeedKind
from dure.feed_events import entry_event
from dure.job import Job, State
from dure.ledger import FeedRow, Ledger
from dure.watch import root_key
from dure.workflow import NoSuchPart, Workflow

if TYPE_CHECKING:
    from dure.client.watching import Watching

log = structlog.get_logger("dure")

_PAGE = 500
_FIRST_SECONDS = 0.02
_MOST_SECONDS = 1.0
_CURSOR = re.compile(r"(\d{1,18})(?:\.(\d{1,9}|end))?", re.ASCII)


class FlowFeed:
    """One reader of a workflow and its nodes. It may be slow, or stop reading: nothing is kept for it here."""

    def __init__(self, watching: Watching, ledger: Ledger, workflow_id: str, after: str | None) -> None:
        """Raises InvalidCursor."""
        self._watching = watching
        self._ledger = ledger
        self._id = workflow_id
        self._after = _Cursor.parse(after)
        self._mail = Mailbox()
        self._over = False

    @property
    def over(self) -> bool:
        """The reader has all, up to the result."""
        return self._over

    async def open(self, workflow: Workflow) -> None:
        """Begin to listen, unless it has ended: then the ledger has all that there is."""
        if not workflow.state.final:
            await self._watching.subscribe(self, [root_key(self._id)])
        elif self._after.ended:  # it may have been run again since
            self._over = not await self._ledger.workflow_feed(self._id, self._after.before, limit=1)

    async def batch(self) -> list[FeedEvent]:
        """All that there is, at least one event; [] at the end."""
        pause = _FIRST_SECONDS
        while not self._over:
            if events := await self._look():
                return events
            if self._over:
                break
            woken = await self._mail.wait(pause)
            self._mail.take()
            pause = _FIRST_SECONDS if woken else min(pause * 1.6, _MOST_SECONDS)
        await self.close()
        return []

    async def close(self) -> None:
        self._watching.unsubscribe(self)

    def push(self, event: Push, size: int) -> None:
        self._mail.wake()

    def lost(self) -> None:
        self._mail.wake()

    def look(self, job: Job, *, away: bool) -> None: ...

    async def _look(self) -> list[FeedEvent]:
        try:
            workflow = await self._ledger.workflow(self._id)  # first: when it says that it has ended, the log is whole
            rows = await self._ledger.workflow_feed(self._id, self._after.before, limit=_PAGE)
            events = await self._events(rows)
            is_over = workflow is not None and workflow.state.final and len(rows) < _PAGE
            after = _Cursor(rows[-1].seq) if rows else self._after
            if is_over and workflow is not None and not after.ended:
                events.append(await self._result(workflow, f"{after.seq}.end"))
        except (LedgerUnavailable, SQLAlchemyError) as exc:
            log.warning("the ledger could not be asked; who watches goes on watching", error=str(exc))
            return []
        self._after, self._over = after, is_over
        return events

    async def _events(self, rows: Sequence[FeedRow]) -> list[FeedEvent]:
        events: list[FeedEvent] = []
        for row in rows:
            if row.kind == "workflow":
                events.append(await self._whole(row))
            else:
                its = list(_events_of(row, self._id))
                events += its[self._after.part :] if row.seq == self._after.seq else its
        return events

    async def _whole(self, row: FeedRow) -> FeedEvent:
        view = await self._ledger.workflow_view(self._id, nodes=False)
        counts = view.counts if view is not None else {}
        done = sum(number for state, number in counts.items() if state.final)
        data = {
            **row.body,
            "workflow": self._id,
            "at": row.at,
            "counts": {state.value: number for state, number in counts.items()},
            "progress": {"done": done, "total": sum(counts.values())},
        }
        return FeedEvent(id=str(row.seq), kind=FeedKind.WORKFLOW, at=row.at, data=data)

    async def _result(self, workflow: Workflow, event_id: str) -> FeedEvent:
        at = workflow.finished_at or workflow.changed_at
        data = {"workflow": self._id, "at": at, "state": workflow.state.value, "reason": workflow.reason}
        if workflow.state is State.SUCCESS:
            try:
                data["result"] = await self._ledger.workflow_result(workflow)
            except NoSuchPart as exc:
                data |= {"result": None, "detail": str(exc)}
        else:
            failed = await self._ledger.workflow_failure(self._id)
            data["error"] = None if failed is None else msgspec.to_builtins(failed.error)
            data |= {"job": failed.id, "node": failed.node} if failed is not None else {}
        return FeedEvent(id=event_id, kind=FeedKind.RESULT, at=at, data=data)


class _Cursor(Struct, frozen=True):
    """What was seen: all rows up to `seq`, of this one the first `part` entries where it is not 0; and the end."""

    seq: int = 0
    part: int = 0
    ended: bool = False

    @property
    def before(self) -> int:
        """The row behind which there is something to read."""
        return self.seq - 1 if self.part else self.seq

    @classmethod
    def parse(cls, text: str | None) -> _Cursor:
        if not text:
            return cls()
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise InvalidCursor(text)
        seq, part = found.groups()
        return cls(int(seq), 0, True) if part == "end" else cls(int(seq), int(part or 0))


def _events_of(row: FeedRow, workflow_id: str) -> Iterator[FeedEvent]:
    job_id = row.job_id or ""
    where = {"job": job_id, "workflow": workflow_id, "node": row.node}
    if row.kind != "entries":
        data = {**row.body, **where, "at": row.at}
        yield FeedEvent(id=str(row.seq), kind=FeedKind(row.kind), at=row.at, job=job_id, data=data)
        return
    entries: tuple[Entry, ...] = msgspec.convert(row.body, tuple[Entry, ...])
    for number, entry in enumerate(entries, 1):
        event_id = f"{row.seq}.{number}" if number < len(entries) else str(row.seq)
        yield entry_event(event_id, job_id, entry, where)
