"""The store against a model of it: three sessions, two queues, any order of operations, with crashes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from dure.broker import liveness
from dure.broker.store import Delivery, Message, Store

QUEUES = ("a", "b")
SESSIONS = (0, 1, 2)
sessions = st.sampled_from(SESSIONS)
queues = st.sampled_from(QUEUES)


class BrokerMachine(RuleBasedStateMachine):
    """The model: `ready` holds (-priority, number) per queue, `held` what each session has not settled."""

    claimed = Bundle("claimed")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.stores = [self.opened() for _ in SESSIONS]
        for queue in QUEUES:
            self.stores[0].declare_queue(queue)
        self.ready: dict[str, set[tuple[int, int]]] = {queue: set() for queue in QUEUES}
        self.held: list[dict[int, tuple[str, tuple[int, int]]]] = [{} for _ in SESSIONS]
        self.seen: set[int] = set()
        self.published = 0

    def opened(self) -> Store:
        store = Store(self.folder / "broker.db")
        store.fileno()  # a session from the start
        return store

    @rule(session=sessions, queue=queues, priorities=st.lists(st.integers(0, 9), min_size=1, max_size=4))
    def publish(self, session: int, queue: str, priorities: list[int]) -> None:
        messages = []
        for priority in priorities:
            self.published += 1
            messages.append(Message("", queue, str(self.published), {"priority": priority}))
            self.ready[queue].add((-priority, self.published))
        assert self.stores[session].publish(messages) == [1] * len(messages)

    @rule(target=claimed, session=sessions, queue=queues, limit=st.integers(1, 4))
    def claim(self, session: int, queue: str, limit: int) -> tuple[int, list[Delivery]]:
        deliveries = self.stores[session].claim([queue], limit)
        expected = sorted(self.ready[queue])[:limit]
        assert [int(d.message.body) for d in deliveries] == [number for _, number in expected]
        for delivery, entry in zip(deliveries, expected, strict=True):
            assert delivery.redelivered == (entry[1] in self.seen)
            self.seen.add(entry[1])
            self.held[session][delivery.tag] = (queue, entry)
            self.ready[queue].discard(entry)
        return session, deliveries

    @rule(claim=claimed)
    def acknowledge(self, claim: tuple[int, list[Delivery]]) -> None:
        session, deliveries = claim
        self.stores[session].ack([d.tag for d in deliveries])
        for delivery in deliveries:
            self.held[session].pop(delivery.tag, None)

    @rule(claim=claimed, requeue=st.booleans())
    def reject(self, claim: tuple[int, list[Delivery]], requeue: bool) -> None:
        session, deliveries = claim
        self.stores[session].reject([d.tag for d in deliveries], requeue=requeue)
        for delivery in deliveries:
            queue, entry = self.held[session].pop(delivery.tag, (None, None))
            if requeue and queue and entry:
                self.ready[queue].add(entry)

    @rule(queue=queues)
    def purge(self, queue: str) -> None:
        assert self.stores[0].purge(queue) == len(self.ready[queue])
        self.ready[queue].clear()

    @rule(session=sessions, cleanly=st.booleans())
    def end(self, session: int, cleanly: bool) -> None:
        store = self.stores[session]
        if cleanly:
            store.close()
        else:
            self.crash(store)
        self.stores[session] = self.opened()
        for queue, entry in self.held[session].values():
            self.ready[queue].add(entry)
        self.held[session].clear()
        for living in self.stores:
            living._cleaned_at = 0.0  # the second until the next look at who is alive has passed
            living.claim([], 1)

    def crash(self, store: Store) -> None:
        """What the kernel does for a killed process: the lock is freed, and nobody tells the file."""
        assert store._session is not None
        lock = store._session.lock
        liveness._own.discard(lock._path)
        liveness.os.close(lock._fd)
        store._session.ear.close()
        store._database.close()

    @invariant()
    def depths_agree(self) -> None:
        for queue in QUEUES:
            depth = self.stores[0].depth(queue)
            assert depth is not None
            assert depth.messages == len(self.ready[queue])

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)


TestBroker = BrokerMachine.TestCase
TestBroker.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
