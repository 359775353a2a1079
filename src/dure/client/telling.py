"""Tells those who watch what no worker told them: what stock workers told without keys, and what the ledger did itself.

Stock workers publish their events for everybody who reads all events, and a feed of one job reads only its own. So the
recorder hands on what they told before it records it, and here it is published again under the keys of its jobs. Of
what the ledger did itself, a cancelled job or a node that ends another, there is no event: whoever watches is told to
ask.

Both are hints. They are told in their order by one task beside the recorder, which waits for none of them; while the
broker is away, or so much waits that memory is in danger, they are dropped, and whoever watches has asked the ledger
by then.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec

from dure.errors import LedgerUnavailable, LinkError
from dure.event import JobEvent
from dure.job import Job
from dure.ledger import Ledger
from dure.link import Link
from dure.watch import in_messages, root_key, watch_keys
from dure.wire import CHANGED_KEY, TOLD_KEY, Changed, WireEvent, told_again
from dure.workflow import Workflow

_BOUND_BYTES = 16 * 1024 * 1024
_BATCH_BYTES = 256 * 1024
_REMEMBERED = 20_000

Place = tuple[str | None, str | None]  # a job's task, and the workflow it is of
Again = tuple[bytes, list[JobEvent]]


class Telling:
    def __init__(self, link: Link, ledger: Ledger) -> None:
        self._link = link
        self._ledger = ledger
        self._places: OrderedDict[str, Place] = OrderedDict()
        self._again: list[Again] = []
        self._changed: list[tuple[bytes, Sequence[str]]] = []
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    def again(self, body: bytes, events: Sequence[WireEvent]) -> None:
        """Tell a message of events again if a stock worker sent it: ours number the attempts and give the keys."""
        told = [event for event in events if isinstance(event, JobEvent)]
        if told and not any(event.attempt for event in told) and self._has_room(len(body)):
            self._again.append((body, told))
            self._begin()

    def changed(self, jobs: Iterable[Job], workflows: Iterable[Workflow]) -> None:
        """Tell that the ledger knows more of these."""
        for job in jobs:
            body = msgspec.json.encode(Changed(uuid=job.id, root_id=job.root_id, task=job.task))
            self._put(body, watch_keys(job.id, job.task, job.root_id))
        for workflow in workflows:
            state = {"id": workflow.id, "state": workflow.state.value}
            self._put(msgspec.json.encode(Changed(root_id=workflow.id, workflow=state)), [root_key(workflow.id)])

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _put(self, body: bytes, keys: Sequence[str]) -> None:
        if self._has_room(len(body)):
            self._changed.append((body, keys))
            self._begin()

    def _has_room(self, size: int) -> bool:
        if self._bytes + size > _BOUND_BYTES:
            return False
        self._bytes += size
        return True

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._tell(), name="dure-telling")

    async def _tell(self) -> None:
        await asyncio.sleep(0)  # what happens at once is told at once
        while self._again or self._changed:
            again, self._again = self._again, []
            changed, self._changed = self._changed, []
            self._bytes = 0
            with suppress(LinkError, LedgerUnavailable):
                await self._tell_again(again)
                for bodies, keys in in_messages(changed):
                    await self._link.tell(b"[" + b",".join(bodies) + b"]", CHANGED_KEY, keys)

    async def _tell_again(self, again: Sequence[Again]) -> None:
        for portion in _portions(again):
            await self._find_places(event for _, events in portion for event in events)
            for bodies, keys in in_messages((self._whole(body), self._keys(events)) for body, events in portion):
                await self._link.tell(told_again(bodies), TOLD_KEY, keys)

    async def _find_places(self, events: Iterable[JobEvent]) -> None:
        """Only the first events of a job say what it is; another recorder may have read those."""
        unknown = set()
        for event in events:
            if event.task:
                self._places[event.job_id] = (event.task, event.root_id)
                self._places.move_to_end(event.job_id)
            elif event.job_id not in self._places:
                unknown.add(event.job_id)
        if unknown:
            for job in (await self._ledger.some_jobs(list(unknown))).values():
                self._places[job.id] = (job.task, job.root_id)
        while len(self._places) > _REMEMBERED:
            self._places.popitem(last=False)

    def _whole(self, body: bytes) -> bytes:
        """With what each job is in each of its events, as our workers tell it."""
        decoded = msgspec.json.decode(body)
        for fields in decoded if isinstance(decoded, list) else [decoded]:
            place = self._places.get(str(fields.get("uuid"))) if isinstance(fields, dict) else None
            if place is not None:
                fields["name"], fields["root_id"] = place
        return msgspec.json.encode(decoded)

    def _keys(self, events: Iterable[JobEvent]) -> list[str]:
        ids = dict.fromkeys(event.job_id for event in events)
        return [key for job_id in ids for key in watch_keys(job_id, *self._places.get(job_id, (None, None)))]


def _portions(again: Sequence[Again]) -> Iterable[Sequence[Again]]:
    portion: list[Again] = []
    size = 0
    for body, events in again:
        if portion and size + len(body) > _BATCH_BYTES:
            yield portion
            portion, size = [], 0
        portion.append((body, events))
        size += len(body)
    if portion:
        yield portion
