"""Knows the workers: switches on the events of stock ones, and asks each what it runs and listens to.

Our own workers announce themselves, with schemas, and their heartbeats say that they are ours; one that a new ledger
knows only by its heartbeat is asked to announce itself again. A stock `celery worker` says nothing but its heartbeat,
so it is asked by remote control for its tasks, queues and pool, told to send task events, and told which jobs are
cancelled. It is asked again now and then, for a worker may have been restarted with other code under the same name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence, Set
from typing import Any

from dure.ledger.ledger import Ledger
from dure.link import Link
from dure.node import Node
from dure.service import Loop
from dure.task import Task
from dure.wire import Announcement

_LOOK_SECONDS = 1.0
_ASK_AGAIN_SECONDS = 60.0
_REPLY_SECONDS = 2.0
_ALIVE_SECONDS = 30.0
_CANCELLED = 10_000  # of the latest; Celery's own memory holds some more
OURS = "dure"


class Census(Loop):
    name = "census"

    def __init__(self, ledger: Ledger, link: Link) -> None:
        super().__init__()
        self._ledger = ledger
        self._link = link
        self._asked: dict[str, tuple[float, float | None]] = {}

    async def run(self) -> None:
        while True:
            nodes = await self._ledger.workers()
            await self._hear_again(nodes)
            strangers = self._strangers(nodes)
            if strangers:
                # Who did not answer, because it had just begun, is asked again in the next round.
                answered = await self.ask(list(strangers))
                for hostname in answered:
                    self._asked[hostname] = (time.time(), strangers[hostname])
                await self._tell_of_cancelled(sorted(answered))
            self.alive()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _hear_again(self, nodes: Sequence[Node]) -> None:
        """Our own workers that this ledger has heard of only by their heartbeats are asked to announce themselves."""
        silent = [node.hostname for node in nodes if _is_ours(node) and node.online and node.pool is None]
        if silent:
            await self._link.broadcast("dure_announce", {}, destination=silent, timeout=0)

    async def _tell_of_cancelled(self, hostnames: Sequence[str]) -> None:
        """A stock worker has forgotten whatever was revoked before it started; ours read that for themselves."""
        ids = await self._ledger.cancelled_ids(limit=_CANCELLED) if hostnames else []
        if ids:
            await self._link.broadcast("revoke", {"task_id": ids}, destination=hostnames, timeout=0)

    async def ask(self, hostnames: Sequence[str]) -> Set[str]:
        """Switch these workers' events on and record what they tell of themselves; returns who answered."""
        await self._link.broadcast("enable_events", {}, destination=hostnames, timeout=0)
        stats, queues, tasks = await asyncio.gather(
            *(
                self._link.broadcast(method, {}, destination=hostnames, timeout=_REPLY_SECONDS)
                for method in ("stats", "active_queues", "registered")
            )
        )
        answered = stats.keys() & queues.keys() & tasks.keys()
        told = [_announcement(name, stats[name], queues[name], tasks[name]) for name in sorted(answered)]
        if told:
            await self._ledger.record([], told)
        return answered

    def _strangers(self, nodes: Sequence[Node]) -> dict[str, float | None]:
        """Stock workers that are alive and did not answer lately, or were started since; with their start."""
        now = time.time()
        found = {}
        for node in nodes:
            if not _is_ours(node) and node.online and now - node.heartbeat_at < _ALIVE_SECONDS:
                answered_at, started_at = self._asked.get(node.hostname, (0.0, None))
                if now - answered_at > _ASK_AGAIN_SECONDS or started_at != node.started_at:
                    found[node.hostname] = node.started_at
        return found


def _is_ours(node: Node) -> bool:
    return (node.software or "").startswith(f"{OURS} ")


def _announcement(hostname: str, stats: Any, queues: Any, tasks: Any) -> Announcement:
    stats = stats if isinstance(stats, Mapping) else {}
    pool = stats.get("pool") or {}
    now = time.time()
    names = tuple(str(queue["name"]) for queue in queues or () if isinstance(queue, Mapping) and "name" in queue)
    node = Node(
        hostname=hostname,
        pool=_pool_name(pool.get("implementation")),
        concurrency=pool.get("max-concurrency"),
        queues=names,
        pid=stats.get("pid"),
        heartbeat_at=now,
    )
    # `registered` answers names, some followed by options in brackets.
    listed = tuple(
        Task(name=str(task).partition(" [")[0], queue=_default_queue(names), announced_at=now, announced_by=hostname)
        for task in tasks or ()
    )
    return Announcement(node=node, tasks=listed)


def _pool_name(implementation: Any) -> str | None:
    """`celery.concurrency.prefork:TaskPool` is `prefork`; a thread's module is called `thread`."""
    if not isinstance(implementation, str):
        return None
    name = implementation.partition(":")[0].rpartition(".")[2]
    return "threads" if name == "thread" else name


def _default_queue(names: Sequence[str]) -> str | None:
    """A stock worker tells no routes; one that listens to a single queue means that one."""
    return names[0] if len(names) == 1 else None
