"""A ledger does what a model of it in plain Python does, whatever is done to it, also when it is cut off in between."""

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dure.errors import IdempotencyConflict, JobEnded, LedgerUnavailable
from dure.event import JobEvent
from dure.job import Job, JobError, Reason, State, Unique, Until
from dure.ledger import JobFilter, Ledger, Request
from dure.ledger.keys import Outcome
from tests.conformance.ledger_model import WAITING, Model, holds
from tests.conformance.ledger_processes import killed_in_the_middle
from tests.conformance.ledgers import NOW, Database, before_commits, job, told, wanted

Answer = TypeVar("Answer")

FOREIGN = ("foreign-1", "foreign-2")
FATES = st.sampled_from(["answered"] * 14 + ["unanswered", "cut off"])
UNTIL = st.sampled_from([Until.STARTED, Until.FINISHED, Until.TIME])

WORDS = st.sampled_from(
    [
        {"state": State.QUEUED, "attempt": None, "worker": None},
        {"state": State.QUEUED, "delivery": True},
        {"state": State.STARTED},
        {"state": State.RETRY, "error": JobError(type="E", message="m")},
        {"state": State.SUCCESS, "result": [1]},
        {"state": State.FAILURE, "reason": Reason.ERROR, "error": JobError(type="E", message="m")},
        {"state": State.REVOKED, "reason": Reason.TERMINATED},
    ]
)


class LedgerMachine(RuleBasedStateMachine):
    """Subclasses say how a new ledger is made, how its rows are read, and how a call is cut off before its commit."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.now = NOW
        self.number = 0
        self.ended: set[str] = set()
        self.uniques: dict[str, Unique] = {}
        self.runner = asyncio.Runner()
        self.ledger = Ledger(self.url)

    def run(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.ledger.close())
        self.runner.close()

    def open_anew(self) -> None:
        self.run(self.ledger.close())
        self.ledger = Ledger(self.url)
        self.run(self.ledger.open())

    def write(self, fate: str, method: str, *args: Any, commit: int = 1, **kwargs: Any) -> tuple[bool, Any]:
        """Whether it was kept, and its answer; None where nobody waited for one."""
        if fate == "answered":
            return True, self.run(getattr(self.ledger, method)(*args, **kwargs))
        if fate == "unanswered":
            self.run(self.leave(method, *args, **kwargs))
        else:
            self.cut_off(commit, method, *args, **kwargs)
        self.open_anew()
        return fate == "unanswered", None

    async def leave(self, method: str, *args: Any, **kwargs: Any) -> None:
        call = asyncio.ensure_future(getattr(self.ledger, method)(*args, **kwargs))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])

    def cut_off(self, commit: int, method: str, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def new_job(self, later: float | None, expires: float | None, unique: Unique | None = None) -> Job:
        self.number += 1
        timing = {} if later is None else {"state": State.SCHEDULED, "eta": self.now + later}
        key = None if unique is None else unique.key
        made = job(self.number, expires=None if expires is None else self.now + expires, unique_key=key, **timing)
        if unique is not None:
            self.uniques[made.id] = unique
        return made

    def some(self, data: st.DataObject, among: Iterable[str] | None = None) -> list[str]:
        names = sorted(self.model.jobs if among is None else among)
        if not names:
            return []
        return data.draw(st.lists(st.sampled_from(names), max_size=4, unique=True))

    # What is done.

    @rule(seconds=st.sampled_from([0.5, 1, 3, 10]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        fate=FATES,
        times=st.lists(st.tuples(st.none() | st.just(5.0), st.none() | st.just(8.0)), min_size=1, max_size=3),
    )
    def accept(self, fate: str, times: list[tuple[float | None, float | None]]) -> None:
        jobs = [self.new_job(later, expires) for later, expires in times]
        batch = [(each, each.eta or self.now + 4) for each in jobs]
        if self.write(fate, "accept", batch)[0]:
            self.model.accept(batch)

    @rule(data=st.data(), fate=FATES, count=st.integers(1, 3))
    def accept_once(self, data: st.DataObject, fate: str, count: int) -> None:
        requests = [self.drawn_request(data) for _ in range(count)]
        kept, answer = self.write(fate, "accept_once", requests, self.now)
        if kept:
            expected = self.model.accept_once(requests, self.now)
            assert answer is None or list(map(comparable, answer)) == list(map(comparable, expected))

    def drawn_request(self, data: st.DataObject) -> Request:
        uniques: list[Unique | None] = [
            None
            if key is None
            else Unique(key=key, until=until, expires_at=self.now + 6 if until is Until.TIME else None)
            for key, until in data.draw(
                st.lists(st.tuples(st.sampled_from(["u1", "u1", "u2", None]), UNTIL), min_size=1, max_size=2),
                label="unique",
            )
        ]
        jobs = [self.new_job(None, None, unique) for unique in uniques]
        key = data.draw(st.sampled_from([None, "i1", "i2"]), label="key")
        print_ = data.draw(st.sampled_from(["same", "same", "other"]), label="fingerprint")
        base = wanted(*jobs, key=key, print_=print_, until=self.now + 7)
        held = {each.id: unique for each, unique in zip(jobs, uniques, strict=True) if unique is not None}
        return Request(jobs=base.jobs, unique=held, idempotency=base.idempotency)

    @rule(fate=FATES.filter(lambda fate: fate != "unanswered"), limit=st.integers(1, 4))
    def claim(self, fate: str, limit: int) -> None:
        kept, answer = self.write(fate, "claim_due", self.now, lease=4.0, limit=limit)
        if kept:
            claimed, due = {each.id for each in answer}, self.model.are_due(self.now)
            assert claimed <= due
            assert len(answer) == len(claimed) == min(limit, len(due))
            longest = max((self.model.due[name] or 0 for name in claimed), default=0)
            assert all((self.model.due[name] or 0) >= longest for name in due - claimed)
            assert {each.id: each for each in answer} == {name: self.model.jobs[name] for name in claimed}
            self.model.claim(claimed, self.now + 4)

    @rule(data=st.data(), fate=FATES)
    def renew(self, data: st.DataObject, fate: str) -> None:
        names = self.some(data)
        if self.write(fate, "renew_due", names, self.now + 4)[0]:
            self.model.renew(names, self.now + 4)

    @rule(data=st.data(), fate=FATES, ago=st.integers(0, 2))
    def confirm(self, data: st.DataObject, fate: str, ago: int) -> None:
        names = self.some(data)
        if self.write(fate, "mark_queued", names, self.now - ago)[0]:
            self.model.mark_queued(names, self.now - ago)

    @rule(data=st.data(), fate=FATES, commit=st.integers(1, 2))
    def record(self, data: st.DataObject, fate: str, commit: int) -> None:
        names = st.sampled_from(sorted({*self.model.jobs, *FOREIGN}))
        drawn = st.tuples(names, WORDS, st.sampled_from([0, 1, 1, 2]), st.integers(-2, 1))
        events: list[JobEvent] = []
        for name, word, attempt, at in data.draw(st.lists(drawn, min_size=1, max_size=5)):
            events.append(told(name, **({"at": self.now + at, "attempt": attempt} | word)))
        events += data.draw(st.lists(st.sampled_from(events), max_size=2))
        if all(each.job_id in self.model.jobs for each in events):
            commit = 1  # the other one is that of rows for jobs that nobody knew
        kept, answer = self.write(fate, "record", events, commit=commit)
        if kept:
            changed = self.model.record(events)
            assert answer is None or {each.id: each for each in answer} == {n: self.model.jobs[n] for n in changed}
        elif commit == 2:
            self.model.introduce(events)

    @precondition(lambda self: self.model.holders)
    @rule(data=st.data(), state=st.sampled_from([State.STARTED, State.SUCCESS, State.FAILURE]))
    def a_holder_goes_on(self, data: st.DataObject, state: State) -> None:
        name, _ = self.model.holders[data.draw(st.sampled_from(sorted(self.model.holders)))]
        word = told(name, state, self.now)
        self.run(self.ledger.record([word]))
        self.model.record([word])

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), fate=FATES)
    def cancel(self, data: st.DataObject, fate: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.jobs)))
        before = self.model.jobs[name]
        if before.state in {State.SUCCESS, State.FAILURE}:
            with pytest.raises(JobEnded) as caught:
                self.run(self.ledger.request_cancel(name, self.now, due_at=self.now + 4))
            assert caught.value.job == before
            return
        kept, answer = self.write(fate, "request_cancel", name, self.now, due_at=self.now + 4)
        if kept:
            after = self.model.request_cancel(name, self.now, self.now + 4)
            assert answer is None or answer == after

    @rule(data=st.data(), fate=FATES)
    def tell_the_broker(self, data: st.DataObject, fate: str) -> None:
        names = self.some(data)
        if self.write(fate, "mark_revoked", names)[0]:
            self.model.mark_revoked(names)

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), fate=FATES)
    def refuse(self, data: st.DataObject, fate: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.jobs)))
        if self.write(fate, "fail_accepted", name, "rejected", "no queue", self.now)[0]:
            self.model.fail_accepted(name, "rejected", "no queue", self.now)

    @rule(data=st.data(), ago=st.sampled_from([0, 2, 8]), limit=st.sampled_from([2, 99]))
    def sweep_silent(self, data: st.DataObject, ago: float, limit: int) -> None:
        silent = self.run(self.ledger.silent_jobs(self.now - ago, limit=limit))
        assert silent == self.model.silent(self.now - ago, limit)
        lost = self.some(data, (each.id for each in silent))
        if lost:
            self.end(lost, Reason.LOST)
        known = [each.id for each in silent if each.id not in lost]
        self.run(self.ledger.mark_checked(known, self.now))
        self.model.checked.update(dict.fromkeys(known, self.now))

    @rule()
    def sweep_expired(self) -> None:
        over = self.run(self.ledger.expired_jobs(self.now, limit=99))
        assert sorted(each.id for each in over) == sorted(each.id for each in self.model.expired(self.now))
        self.end([each.id for each in over], Reason.EXPIRED)

    def end(self, names: list[str], reason: Reason) -> None:
        ends = [
            JobEvent(job_id=name, state=State.FAILURE, at=self.now, attempt=max(1, known.attempts), reason=reason)
            for name in names
            for known in [self.model.jobs[name]]
        ]
        if ends:
            self.run(self.ledger.record(ends))
            self.model.record(ends)
            assert all(self.model.jobs[name].state is State.FAILURE for name in names)

    @rule(fate=FATES)
    def drop_keys(self, fate: str) -> None:
        if self.write(fate, "drop_expired_keys", self.now)[0]:
            self.model.drop_expired(self.now)

    @rule()
    def counts_agree(self) -> None:
        assert self.run(self.ledger.count_open()) == self.model.counts()
        assert self.run(self.ledger.count_jobs(JobFilter())) == len(self.model.jobs)
        assert self.run(self.ledger.next_due()) == min(
            (d for d in self.model.due.values() if d is not None), default=float("inf")
        )

    # What holds whatever was done.

    @invariant()
    def the_ledger_holds_what_the_model_holds(self) -> None:
        self.found = self.run(self.ledger.some_jobs(list(self.model.jobs)))
        assert self.found == self.model.jobs
        rows = {name: (due, checked) for name, due, checked in self.rows("SELECT id, due_at, checked_at FROM jobs")}
        assert rows == {name: (self.model.due[name], self.model.checked[name]) for name in self.model.jobs}
        assert {key for (key,) in self.rows("SELECT key FROM idempotency_keys")} == self.model.requests.keys()
        assert {key for (key,) in self.rows("SELECT key FROM unique_keys")} == self.model.holders.keys()

    @invariant()
    def an_end_is_an_end(self) -> None:
        assert all(self.model.jobs[name].state.final for name in self.ended)
        self.ended |= {name for name, each in self.model.jobs.items() if each.state.final}

    @invariant()
    def a_key_has_one_live_holder(self) -> None:
        live = defaultdict(list)
        for name, unique in self.uniques.items():
            if name in self.model.jobs and holds(self.model.jobs[name], unique, self.now):
                live[unique.key].append(name)
        assert all(len(names) == 1 for names in live.values())

    @invariant()
    def no_job_is_forgotten(self) -> None:
        """What waits for its message will be published, and what is cancelled will be told of or has ended."""
        for name, each in self.model.jobs.items():
            if each.state in WAITING and each.origin == "dure":
                assert self.model.due[name] is not None


def comparable(outcome: Outcome) -> Any:
    return outcome.key if isinstance(outcome, IdempotencyConflict) else outcome


def examples(machine: Callable[[], LedgerMachine], count: int, steps: int) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=count, stateful_step_count=steps))


def test_a_file_does_what_the_model_does(migrated_file: Path, tmp_path: Path) -> None:
    class OnAFile(LedgerMachine):
        def __init__(self) -> None:
            path = tmp_path / "ledger.db"
            for end in ("", "-wal", "-shm"):
                Path(f"{path}{end}").unlink(missing_ok=True)
            shutil.copy(migrated_file, path)
            self.url = f"sqlite:///{path}"
            super().__init__()

        def rows(self, query: str) -> list[tuple[Any, ...]]:
            return Database("sqlite", self.url, None).rows(query)

        def cut_off(self, commit: int, method: str, *args: Any, **kwargs: Any) -> None:
            killed_in_the_middle(self.url, commit, method, *args, **kwargs)

    examples(OnAFile, 20, 25)


def test_a_server_does_what_the_model_does(postgres_url: str, migrated_database: str) -> None:
    url = postgres_url.rpartition("/")[0] + "/" + migrated_database

    class OnAServer(LedgerMachine):
        def __init__(self) -> None:
            self.url = url
            self.session = psycopg.connect(url, autocommit=True)
            self.session.execute(
                "TRUNCATE jobs, job_tags, queues, workers, tasks, idempotency_keys, unique_keys RESTART IDENTITY"
            )
            super().__init__()

        def teardown(self) -> None:
            super().teardown()
            self.session.close()

        def rows(self, query: str) -> list[tuple[Any, ...]]:
            return self.session.execute(query.encode()).fetchall()

        def cut_off(self, commit: int, method: str, *args: Any, **kwargs: Any) -> None:
            commits = iter(range(1, commit + 1))

            def end(connection: Any) -> None:
                if next(commits) == commit:
                    pid = connection.connection.driver_connection.info.backend_pid
                    self.session.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

            with before_commits(self.ledger, method, end), pytest.raises(LedgerUnavailable):
                self.run(getattr(self.ledger, method)(*args, **kwargs))

    examples(OnAServer, 6, 25)
