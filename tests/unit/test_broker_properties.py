"""The store against a model of it: several sessions and queues, any order of operations, with deaths.

Once with every session in this process, where a crash is what the kernel leaves of one; and once with sessions in
processes of their own, which are killed, also in the middle of what they do.
"""

from __future__ import annotations

import copy
import os
import shutil
import signal
import socket
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dure.broker.store import Store
from tests.unit.broker_model import FANOUT, FLEETING, Limits, Model, Real, Sent, rows

QUEUES = ("a", "b", "c", FLEETING)
SESSIONS = (0, 1, 2)
FATES = ("ack", "reject", "give_back")
sessions = st.sampled_from(SESSIONS)
queues = st.sampled_from(QUEUES)
places = st.integers(0, 4)  # of a queue among those that have something to claim
fates = st.sampled_from(FATES)
moments = st.sampled_from([0.0, 0.0002, 0.001])
addresses = st.sampled_from([(FANOUT, None), ("", "a"), ("", "b"), ("", "c"), (None, None), ("nowhere", "a")])
limits = st.builds(
    lambda max_length, message_ttl, delivery_limit, address: Limits(max_length, message_ttl, delivery_limit, *address),
    st.sampled_from([None, None, 2, 4]),
    st.sampled_from([None, None, 4]),
    st.sampled_from([0, 1, None]),
    addresses,
)
drafts = st.lists(st.tuples(queues, st.integers(0, 2), st.sampled_from([None, None, 2])), min_size=1, max_size=5)


class Broker(RuleBasedStateMachine):
    foreseeable = True  # hypothesis wants the same rules to be there when it repeats an example

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "broker.db"
        self.observer = Store(self.path)
        self.model = Model(("c", "dead"))
        self.sent = 0
        self.sessions = [self.opened() for _ in SESSIONS]

    def opened(self) -> Any:
        return Real(self.path)

    @initialize(declared=st.tuples(limits, limits, limits), drafts=drafts)
    def begin(self, declared: tuple[Limits, ...], drafts: list[tuple[str, int, int | None]]) -> None:
        self.observer.declare_exchange(FANOUT, "fanout")
        for queue, each in zip(("a", "b", "c", "dead"), (*declared, Limits()), strict=True):
            self.both(0, "declare", queue, each)
        for queue in self.model.fanout:
            self.observer.bind(queue, FANOUT)
        self.publish(0, drafts)

    def both(self, session: int, name: str, *arguments: Any) -> Any:
        """Ask the session and the model; they answer alike."""
        real = self.sessions[session]
        answer = real.ask(self.model.now, name, *arguments)
        assert answer == getattr(self.model, name)(real.session, *arguments)
        return answer

    @rule(session=sessions, drafts=drafts)
    def publish(self, session: int, drafts: list[tuple[str, int, int | None]]) -> None:
        self.both(session, "publish", self.numbered(drafts))

    @precondition(lambda self: not self.foreseeable or self.filled())
    @rule(
        session=sessions,
        place=places,
        limit=st.integers(1, 4),
        fate=fates | st.sampled_from(["keep", "no_ack"]),
        times=st.integers(1, 3),
    )
    def take(self, session: int, place: int, limit: int, fate: str, times: int) -> None:
        queue = self.queue(place)
        for _ in range(times):
            claimed = self.both(session, "claim", queue, limit, fate == "no_ack")
            if fate in FATES:
                self.both(session, fate, [tag for tag, _, _ in claimed])

    @precondition(lambda self: not self.foreseeable or any(kept.holder for kept in self.model.messages.values()))
    @rule(session=sessions, fate=fates, others=st.booleans())
    def settle(self, session: int, fate: str, others: bool) -> None:
        """All that is held; to settle what is another's, or gone, does nothing."""
        self.both(session, fate, list(range(1, self.model.tags + 1)) if others else self.held(session))

    @rule(session=sessions, how=st.sampled_from(["consume", "cancel", "purge", "declare"]), queue=queues, limits=limits)
    def turn_to(self, session: int, how: str, queue: str, limits: Limits) -> None:
        self.both(session, how, queue, *([limits] if how == "declare" else []))

    @rule(seconds=st.integers(1, 3), session=sessions | st.none())
    def wait(self, seconds: int, session: int | None) -> None:
        self.model.now += seconds
        if session is not None:
            self.both(session, "housekeep")

    @rule(session=sessions, politely=st.booleans())
    def end(self, session: int, politely: bool) -> None:
        if politely:
            self.both(session, "close")
        else:
            self.sessions[session].crash()
            self.model.crash(self.sessions[session].session)
        self.sessions[session] = self.opened()

    def numbered(self, drafts: list[tuple[str, int, int | None]]) -> list[Sent]:
        first, self.sent = self.sent, self.sent + len(drafts)
        return [Sent(number, *draft) for number, draft in enumerate(drafts, first)]

    def filled(self) -> list[str]:
        return [name for name in self.model.queues if self.model.ready(name)]

    def queue(self, place: int) -> str:
        filled = self.filled()
        return filled[place % len(filled)] if filled else QUEUES[place % len(QUEUES)]

    def held(self, session: int) -> list[int]:
        return [tag for tag, kept in self.model.messages.items() if kept.holder == self.sessions[session].session]

    @invariant()
    def every_message_is_where_it_belongs(self) -> None:
        assert rows(self.observer) == self.model.rows()

    @invariant()
    def depths_agree(self) -> None:
        depths = {depth.name: (depth.messages, depth.consumers, depth.dropped) for depth in self.observer.queues()}
        assert depths == self.model.depths()

    @invariant()
    def every_job_is_found_in_its_queue(self) -> None:
        for queue in (*QUEUES, "dead"):
            found = self.observer.holds(queue, [str(number) for number in range(self.sent)])
            assert {int(job) for job in found} == self.model.holds(queue)

    def teardown(self) -> None:
        for real in self.sessions:
            real.ask(self.model.now, "close")
        self.observer.close()
        shutil.rmtree(self.folder)


class Process:
    """A session in a process of its own, forked; it is asked as one in this process is."""

    def __init__(self, path: Path) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _serve(path, Connection(theirs.detach()))
        theirs.close()
        self.line = Connection(ours.detach())
        self.session = self.line.recv()

    def ask(self, clock: float, name: str, *arguments: Any) -> Any:
        self.line.send((clock, name, *arguments))
        answer = self.line.recv()
        if name == "close":
            self.crash()
        return answer

    def ask_and_kill(self, after: float, clock: float, name: str, *arguments: Any) -> None:
        self.line.send((clock, name, *arguments))
        time.sleep(after)
        self.crash()

    def crash(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.line.close()


def _serve(path: Path, line: Connection) -> None:
    try:
        real = Real(path)
        line.send(real.session)
        while True:
            line.send(real.ask(*line.recv()))
    finally:
        os._exit(1)


class KilledBroker(Broker):
    foreseeable = False

    def opened(self) -> Process:
        return Process(self.path)

    @rule(session=sessions, drafts=drafts, after=moments)
    def die_publishing(self, session: int, drafts: list[tuple[str, int, int | None]], after: float) -> None:
        self.die(session, after, "publish", self.numbered(drafts))

    @rule(session=sessions, place=places, after=moments)
    def die_claiming(self, session: int, place: int, after: float) -> None:
        self.die(session, after, "claim", self.queue(place), 4, False)

    @rule(session=sessions, fate=fates, after=moments)
    def die_settling(self, session: int, fate: str, after: float) -> None:
        self.die(session, after, fate, self.held(session))

    def die(self, session: int, after: float, name: str, *arguments: Any) -> None:
        """Whenever it is killed, it has done all of it or nothing."""
        real = self.sessions[session]
        real.ask_and_kill(after, self.model.now, name, *arguments)
        done = copy.deepcopy(self.model)
        getattr(done, name)(real.session, *arguments)
        found = rows(self.observer)
        assert found in (self.model.rows(), done.rows())
        if found == done.rows():
            self.model = done
        self.model.crash(real.session)
        self.sessions[session] = self.opened()


TestBroker = Broker.TestCase
TestBroker.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestKilledBroker = KilledBroker.TestCase
TestKilledBroker.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
