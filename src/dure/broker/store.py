"""The embedded broker's sync API: queues, exchanges and messages in one SQLite file, for many processes.

    store = Store("/var/lib/app/broker.db")            # opens lazily; also makes the folder
    store.declare_exchange("celery", "direct")
    store.declare_queue("celery", arguments={"x-max-length": 1000})
    store.bind("celery", "celery", "celery")
    reached = store.publish([Message("", "celery", b"{}", {"priority": 3})])   # -> [1]: queues per message

    tag = store.consume("celery")                      # now counted, woken, and missed when it dies
    for delivery in store.claim(["celery"], 10):       # a batch, highest priority first, then oldest
        store.ack([delivery.tag])
    deliveries = store.claim(["celery"], 10, ack=[1])  # both in one transaction
    store.close()

**Waiting.** `fileno()` is a socket that becomes readable when something may have arrived; call
`drain_wakes()` and claim until it answers nothing. Wakes are a hint: claim at least once a second while
consuming even without one, which is also what gives a dead consumer's messages back (see `liveness`).

**Sessions.** A store becomes a session with its first consume, claim or exclusive queue. Unacknowledged
messages, consumers and exclusive queues are its own, and go when it is closed, or when its process dies.
Only the session that claimed a message can settle it; settling one that is no longer ours does nothing.

**Threads and forks.** All methods may be called from any thread. In a forked child a store starts anew: it has
no session and shares nothing with its parent's.

**Errors.** `BrokerUnavailable` when the file stays locked for `busy_timeout`, is full, read-only or damaged:
the transaction is undone, so a publish is either committed or raised.

**Dead letters.** As RabbitMQ's quorum queues have them (see `dead`). A message given back counts as delivered in vain,
whether it was rejected, its store was closed or its process died; past `x-delivery-limit` it is a dead letter.

**Several keys.** A message goes to all queues that its routing key or those in its headers `CC` and `BCC` lead to,
to each once; who gets it is not told the latter.

**Limits.** There are no headers exchanges, byte limits or `x-overflow`; queue arguments that are not named in
`declare_queue` are ignored. A consumer of a queue that is deleted and made again is no longer woken, only served when
it looks.

**Durability.** WAL with synchronous=NORMAL: the crash of any process loses nothing that was committed; a power
cut may lose the last moments. The ledger, which is synchronous=FULL, is the truth.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from dure.broker import deliveries, queues, revocations
from dure.broker.database import Database
from dure.broker.deliveries import Moves
from dure.broker.errors import BrokerUnavailable, QueueLocked
from dure.broker.liveness import taken_from_the_dead
from dure.broker.message import Claim, Delivery, Message, QueueDepth
from dure.broker.routing import Topology
from dure.broker.schema import create_tables
from dure.broker.session import Session
from dure.broker.wake import WakeSender
from dure.revocation import KEPT, Revocation

__all__ = ["Claim", "Delivery", "Message", "QueueDepth", "Store"]

_HOUSEKEEPING_EVERY = 1.0


class Store:
    """`busy_timeout` is how many seconds to wait for a file that another process keeps locked."""

    def __init__(self, path: str | Path, *, busy_timeout: float = 30.0, now: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self._now = now
        self._database = Database(self.path, create_tables, busy_timeout=busy_timeout)
        self._wakes = WakeSender()
        self._session: Session | None = None
        self._topology: Topology | None = None
        self._cleaned_at = 0.0
        self._turns = 0
        self._data_version: int | None = None

    # Topology: every declaration is idempotent.

    def declare_exchange(
        self, name: str, type: str = "direct", *, durable: bool = True, auto_delete: bool = False
    ) -> None:
        """Make a direct, topic or fanout exchange; `ExchangeMismatch` when it exists with another type."""
        with self._database.write() as db:
            queues.declare_exchange(db, name, type, durable=durable, auto_delete=auto_delete)

    def delete_exchange(self, name: str) -> None:
        with self._database.write() as db:
            queues.delete_exchange(db, name)

    def declare_queue(
        self,
        name: str = "",
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> QueueDepth:
        """Make a queue and answer its depth; without a name it gets one.

        Known arguments: `x-max-length`, `x-message-ttl` and `x-expires` (ms), `x-delivery-limit`,
        `x-dead-letter-exchange` and `x-dead-letter-routing-key`. A queue that exists keeps its own, but gets the last
        three where it has none. `QueueLocked` when another living session has it exclusively.
        """
        name = name or f"amq.gen-{uuid4().hex}"
        owner = self._own_session().id if exclusive else None
        self._leave_to_its_owner(name)
        with self._database.write() as db:
            queues.declare_queue(
                db,
                name,
                durable=durable,
                owner=owner,
                auto_delete=auto_delete,
                arguments=arguments or {},
                now=self._now(),
            )
            return queues.depth(db.execute(queues.ONE_DEPTH, (name,)).fetchone())

    def delete_queue(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue if it is there; answers how many ready messages went with it."""
        with self._database.write() as db:
            row = db.execute(queues.ONE_DEPTH, (name,)).fetchone()
            if row is None:
                return 0
            depth = queues.depth(row)
            if (if_unused and depth.consumers) or (if_empty and depth.messages):
                return 0
            return queues.delete_queue(db, queues.queue_id(db, name))

    def bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        self.bind_all(queue, exchange, [routing_key])

    def bind_all(self, queue: str, exchange: str, routing_keys: Iterable[str]) -> None:
        if exchange:  # every queue is bound to the default exchange, by its name
            with self._database.write() as db:
                queues.bind(db, queues.queue_id(db, queue), exchange, routing_keys)

    def unbind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        self.unbind_all(queue, exchange, [routing_key])

    def unbind_all(self, queue: str, exchange: str, routing_keys: Iterable[str]) -> None:
        with self._database.write() as db:
            queues.unbind(db, queues.queue_id(db, queue), exchange, routing_keys)

    def queues(self) -> list[QueueDepth]:
        return [queues.depth(row) for row in self._database.read(queues.ALL_DEPTHS)]

    def depth(self, queue: str) -> QueueDepth | None:
        rows = self._database.read(queues.ONE_DEPTH, (queue,))
        return queues.depth(rows[0]) if rows else None

    def exchange_exists(self, name: str) -> bool:
        return bool(self._database.read("SELECT 1 FROM exchanges WHERE name = ?", (name,)))

    def bindings(self) -> list[tuple[str, str, str]]:
        """Every binding as (queue, exchange, routing key)."""
        return self._database.read(
            "SELECT q.name, b.exchange, b.routing_key FROM bindings b JOIN queues q ON q.id = b.queue"
        )

    def purge(self, queue: str) -> int:
        """Drop the ready messages; answers how many."""
        with self._database.write() as db:
            return deliveries.purge(db, queues.queue_id(db, queue))

    # Messages.

    def publish(self, messages: Sequence[Message]) -> list[int]:
        """Put all messages into their queues in one transaction; answers how many queues each reached."""
        rows = [deliveries.row(message) for message in messages]
        if self._reaches_nobody(messages):
            return [0] * len(messages)
        with self._moves() as moves:
            routed = [(row, moves.topology.reach(m)) for row, m in zip(rows, messages, strict=True)]
            moves.put(routed)
        return [len(routes) for _, routes in routed]

    def consume(self, queue: str, *, tag: str | None = None) -> str:
        """Be counted as a consumer of the queue and woken for it; answers the consumer's tag."""
        session = self._own_session()
        tag = tag or uuid4().hex
        self._leave_to_its_owner(queue)
        with self._database.write() as db:
            queues.add_consumer(db, session.id, tag, queues.queue_id(db, queue))
        return tag

    def cancel(self, tag: str) -> None:
        """Stop being counted; what is unacknowledged stays ours until it is settled or the store is closed."""
        session = self._live_session()
        if session is not None:
            with self._database.write() as db:
                queues.remove_consumers(db, session.id, tag, self._now())

    def claim(
        self, queues: Sequence[str], limit: int, *, ack: Sequence[int] = (), no_ack: bool = False
    ) -> list[Delivery]:
        """Acknowledge `ack` and take up to `limit` messages, in one transaction; with no_ack they are gone."""
        return self.turn(ack, [Claim(tuple(queues), limit, no_ack)])[0]

    def turn(self, acks: Sequence[int], claims: Sequence[Claim]) -> list[list[Delivery]]:
        """Acknowledge and claim for several consumers in one transaction; answers one list per claim."""
        session = self._own_session()
        if time.monotonic() - self._cleaned_at >= _HOUSEKEEPING_EVERY:
            self._housekeep(session)
        if not acks and not self._any_ready(claims):
            return [[] for _ in claims]
        with self._moves() as moves:
            deliveries.acknowledge(moves.db, session.id, acks)
            self._turns += 1
            return [self._claim(moves, claim, session) for claim in claims]

    def ack(self, tags: Iterable[int]) -> None:
        session = self._live_session()
        if session is not None:
            with self._database.write() as db:
                deliveries.acknowledge(db, session.id, tags)

    def reject(self, tags: Iterable[int], *, requeue: bool) -> None:
        """Give messages back to their old places in their queues, or give them up: dead letters, or dropped."""
        session = self._live_session()
        if session is not None:
            with self._moves() as moves:
                (moves.give_back if requeue else moves.reject)(session.id, tags)

    def give_back_unseen(self, tags: Iterable[int]) -> None:
        """Messages that were claimed and that no consumer has seen: this was no delivery."""
        session = self._live_session()
        if session is not None:
            with self._moves() as moves:
                moves.give_back_unseen(session.id, tags)

    def holds(self, queue: str, ids: Iterable[str]) -> set[str]:
        """Which of these jobs have a message in the queue, ready or unacknowledged; a job is its message's header `id`,
        else its correlation id."""
        found = self._database.read("SELECT id FROM queues WHERE name = ?", (queue,))
        return deliveries.holding(self._database, found[0][0], set(ids)) if found else set()

    # Cancelled jobs: a log that every worker reads from its start, and goes on reading.

    def revoke(self, ids: Iterable[str], *, terminate: bool) -> None:
        """Append to the log; a job that is in it already is told again, and never less than before."""
        with self._database.write() as db:
            revocations.append(db, ids, terminate=terminate, at=self._now())

    def revocations(self, after: int = 0) -> list[tuple[int, Revocation]]:
        """What was appended past a position, each with its own position, in their order."""
        return [revocations.entry(row) for row in self._database.read(revocations.AFTER, (after,))]

    # Waiting.

    def fileno(self) -> int:
        """A socket that is readable when this store's consumers may have something to claim."""
        return self._own_session().ear.fileno()

    def drain_wakes(self) -> None:
        """Forget the wakes so far; do it before claiming, never after."""
        self._own_session().ear.drain()

    def wake(self) -> None:
        """Make `fileno()` readable; for a thread that wants the waiting one to look."""
        self._wakes.send((self._own_session().ear.port,))

    def changed(self) -> bool:
        """Whether another connection has written since the last call; cheap enough to ask several times a second."""
        ((version,),) = self._database.read("PRAGMA data_version")
        before, self._data_version = self._data_version, version
        return bool(before != version)

    def close(self) -> None:
        """End the session: what is unacknowledged goes back, exclusive queues go away. May be called twice."""
        session, self._session = self._live_session(), None
        try:
            if session is not None:
                try:
                    with self._moves() as moves:
                        queues.end_session(moves, session.id)
                finally:
                    # Even if the row could not go: the lock is free, so others will see that we are gone.
                    session.end()
        finally:
            self._wakes.close()
            self._database.close()

    def _own_session(self) -> Session:
        session = self._live_session()
        if session is None:
            with self._database.lock:
                session = self._live_session()
                if session is None:
                    session = self._session = Session(self.path, self._database)
        return session

    def _live_session(self) -> Session | None:
        """The session, unless there is none or it is the parent's of this forked child."""
        session = self._session
        return session if session is not None and session.process == os.getpid() else None

    @contextmanager
    def _moves(self) -> Iterator[Moves]:
        """One transaction that moves messages, and after it a wake for whom they reached."""
        with self._database.write() as db:
            moves = Moves(db, self._current_topology(db), self._now())
            yield moves
        self._wakes.send({port for route in moves.reached for port in route.ports})

    def _current_topology(self, db: Any) -> Topology:
        (version,) = db.execute("SELECT version FROM topology").fetchone()
        if self._topology is None or self._topology.version != version:
            self._topology = Topology(db, version)
        return self._topology

    def _reaches_nobody(self, messages: Sequence[Message]) -> bool:
        # Events that nobody listens to are most of what some workers publish; they need not take the write lock.
        topology = self._topology
        if topology is None or any(map(topology.reach, messages)):
            return False
        return bool(self._database.read("SELECT version FROM topology") == [(topology.version,)])

    def _any_ready(self, claims: Sequence[Claim]) -> bool:
        names = tuple({name for claim in claims if claim.limit > 0 for name in claim.queues})
        if not names:
            return False
        marks = ",".join("?" * len(names))
        return bool(
            self._database.read(f"SELECT 1 FROM queues WHERE ready > 0 AND name IN ({marks}) LIMIT 1", names)  # noqa: S608
        )

    def _claim(self, moves: Moves, claim: Claim, session: Session) -> list[Delivery]:
        taken: list[Delivery] = []
        for offset in range(len(claim.queues)):
            # Begin with another queue each time, so that a full one does not starve the rest.
            route = moves.topology.by_name.get(claim.queues[(offset + self._turns) % len(claim.queues)])
            wanted = claim.limit - len(taken)
            if route is not None and wanted > 0:
                taken += moves.claim(route, session.id, wanted, no_ack=claim.no_ack)
        return taken

    def _leave_to_its_owner(self, queue: str) -> None:
        rows = self._database.read(
            "SELECT s.id, s.lock FROM queues q JOIN sessions s ON s.id = q.owner WHERE q.name = ?", (queue,)
        )
        for owner, lock in rows:
            session = self._live_session()
            mine = session is not None and session.id == owner
            if not mine and not self._bury_if_dead(owner, lock):
                raise QueueLocked(queue)

    def _housekeep(self, session: Session) -> None:
        """What anyone may do for all: bury dead sessions, drop what has expired, unused queues and old revocations."""
        self._cleaned_at = time.monotonic()
        if not self._database.read("SELECT 1 FROM sessions WHERE id = ?", (session.id,)):
            self._begin_anew(session)
        for other, lock in self._database.read("SELECT id, lock FROM sessions WHERE id != ?", (session.id,)):
            self._bury_if_dead(other, lock)
        now = self._now()
        more = bool(self._database.read(deliveries.EXPIRED, (now,)))
        while more:
            with self._moves() as moves:
                more = moves.drop_expired()
        if self._database.read(queues.UNUSED_QUEUES, (now,)):
            with self._database.write() as db:
                for (queue,) in db.execute(queues.UNUSED_QUEUES, (now,)).fetchall():
                    queues.delete_queue(db, queue)
        if self._database.read(revocations.FORGETTABLE, (now - KEPT,)):
            with self._database.write() as db:
                revocations.forget(db, now - KEPT)

    def _begin_anew(self, session: Session) -> None:
        """Others took us for dead: someone removed our lock file. What we hold is theirs now, so say so."""
        with self._moves() as moves:
            queues.end_session(moves, session.id)
        self._session = None
        session.end()
        raise BrokerUnavailable(str(self.path), "its session was ended by another process")

    def _bury_if_dead(self, session: int, lock: str) -> bool:
        with taken_from_the_dead(self.path, lock) as dead:
            if not dead:
                return False
            with self._moves() as moves:
                queues.end_session(moves, session)
        return True
