"""What ledgers keep of workers and their tasks."""

import random
from typing import Any

from msgspec import structs

from dure.ledger import Ledger
from dure.node import Node
from dure.task import Task
from dure.wire import Announcement, Heartbeat
from tests.conformance.ledgers import NOW, Database, opened

SCHEMA = {"type": "object", "properties": {"x": {"description": "é\x00"}}}


def announced(*tasks: Task, at: float = NOW, **fields: Any) -> Announcement:
    stamped = tuple(structs.replace(task, announced_at=at, announced_by="w@a") for task in tasks)
    return Announcement(node=Node(**({"hostname": "w@a", "heartbeat_at": at} | fields)), tasks=stamped)


async def test_the_latest_announcement_of_a_task_counts(ledger: Ledger) -> None:
    old = Task(name="t", doc="old", arguments=SCHEMA, positional=("x",), variadic=True, queue="q", result={})
    new = Task(name="t", doc="new", arguments={}, positional=())
    await ledger.record([], [announced(new, at=NOW + 1)])
    await ledger.record([], [announced(old, at=NOW)])
    assert await ledger.tasks() == [structs.replace(new, announced_at=NOW + 1, announced_by="w@a")]
    await ledger.record([], [announced(old, at=NOW + 2)])
    assert await ledger.tasks() == [structs.replace(old, announced_at=NOW + 2, announced_by="w@a")]


async def test_a_name_alone_never_replaces_a_schema(ledger: Ledger) -> None:
    full = Task(name="t", arguments=SCHEMA, positional=("x",))
    await ledger.record([], [announced(full)])
    await ledger.record([], [announced(Task(name="t"), Task(name="bare"), at=NOW + 9)])
    found = {task.name: task for task in await ledger.tasks()}
    assert found["t"].arguments == SCHEMA
    assert found["bare"].arguments is None
    await ledger.record([], [announced(Task(name="bare", arguments=SCHEMA), at=NOW + 10)])
    assert {task.name: task.arguments for task in await ledger.tasks()} == {"t": SCHEMA, "bare": SCHEMA}


async def test_one_batch_may_tell_of_a_task_and_a_worker_several_times(ledger: Ledger) -> None:
    tasks = [announced(Task(name="t", doc=str(n), arguments={}), at=NOW + n) for n in (2, 1, 3)]
    await ledger.record([], tasks)
    assert [task.doc for task in await ledger.tasks()] == ["3"]
    assert [node.heartbeat_at for node in await ledger.workers()] == [NOW + 3]


async def test_the_catalogue_has_another_version_after_each_announcement(ledger: Ledger) -> None:
    versions = [await ledger.catalogue_version()]
    for at, name in ((NOW, "a"), (NOW + 1, "a"), (NOW + 1, "b")):
        await ledger.record([], [announced(Task(name=name, arguments={}), at=at)])
        versions.append(await ledger.catalogue_version())
    assert len(set(versions)) == 4


def beat(at: float, **fields: Any) -> Heartbeat:
    return Heartbeat(**({"hostname": "w@a", "at": at, "online": True, "started": False} | fields))


async def test_a_worker_is_the_same_whatever_order_it_was_told_of(database: Database) -> None:
    words: list[Heartbeat | Announcement] = [
        beat(NOW, started=True, software="dure 1"),
        announced(at=NOW + 1, queues=("q",), pool="threads", concurrency=4, software="dure 1"),
        beat(NOW + 2, pid=7, processed=3, software="dure 1"),
        beat(NOW + 3, pid=7, processed=5, software="dure 1"),
    ]
    chance = random.Random(5)
    found = []
    async with opened(database) as ledger:
        for n in range(4):
            order = words if n == 0 else chance.sample(words, len(words))
            for word in order:
                named = _renamed(word, f"w{n}@a")
                if isinstance(named, Heartbeat):
                    await ledger.record([], [], [named])
                else:
                    await ledger.record([], [named])
        found = [structs.replace(node, hostname="w") for node in await ledger.workers()]
    assert found[0].queues == ("q",)
    assert found == [found[0]] * 4


def _renamed(word: Heartbeat | Announcement, hostname: str) -> Heartbeat | Announcement:
    if isinstance(word, Heartbeat):
        return structs.replace(word, hostname=hostname)
    return structs.replace(word, node=structs.replace(word.node, hostname=hostname))


async def test_a_stock_worker_that_takes_the_name_of_ours_is_known_as_a_stock_one(ledger: Ledger) -> None:
    await ledger.record([], [announced(at=NOW, queues=("q",), pool="threads", software="dure 1")])
    await ledger.record([], [], [beat(NOW + 9, started=True, software="py-celery 5")])
    (node,) = await ledger.workers()
    assert (node.software, node.started_at) == ("py-celery 5", NOW + 9)


async def test_an_older_beat_does_not_bring_a_worker_back(ledger: Ledger) -> None:
    await ledger.record([], [], [beat(NOW + 5, online=False)])
    await ledger.record([], [], [beat(NOW)])
    assert [node.online for node in await ledger.workers()] == [False]
