"""A workflow in a ledger, driven at random beside its model."""

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Iterable, Iterator
from random import Random
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dure.errors import JobEnded, JobNotEnded, WorkflowEnded, WorkflowNotEnded
from dure.event import JobEvent
from dure.job import Job, JobError, Reason, State
from dure.ledger import Ledger, Request
from dure.workflow import Kind, On
from tests.conformance.flow_shapes import Shape, flow
from tests.conformance.ledgers import NOW, before_trips, told
from tests.conformance.workflow_model import ID, OPEN_BEGUN, SIGNAL, WorkflowModel

Answer = TypeVar("Answer")

# More of everything, for a night: DURE_EXAMPLES=50 tries fifty times as many.
MORE = int(os.environ.get("DURE_EXAMPLES", "1"))

RANDOMS = st.randoms(use_true_random=False)
CUTS = st.sampled_from([None] * 5 + [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20])

RESULTS: list[Any] = [
    1,
    None,
    [1, 2, 3],
    [],
    {"v": [1, 2]},
    {"v": []},
    {"$workflow": {"nodes": {"sub": {"task": "t.sub", "args": [7]}}, "result": {"$result": "sub"}}},
]
ENDS: list[dict[str, Any]] = [
    *({"state": State.SUCCESS, "result": result, "has_result": True} for result in [*RESULTS[:-1] * 2, RESULTS[-1]]),
    *[{"state": State.FAILURE, "reason": Reason.ERROR, "error": JobError(type="E", message="m")}] * 3,
    {"state": State.REVOKED, "reason": Reason.TERMINATED},
]
WORDS: list[dict[str, Any]] = [
    {"state": State.QUEUED, "delivery": True},
    {"state": State.STARTED},
    {"state": State.STARTED},
    {"state": State.RETRY, "error": JobError(type="E", message="m")},
]


def drawn_shapes(random: Random, size: int) -> list[Shape]:
    return [_drawn_shape(random, number) for number in range(size)]


def _drawn_shape(random: Random, number: int) -> Shape:
    before = range(max(0, number - 20), number)
    needs = {
        f"n{need}": random.choice([On.SUCCESS] * 7 + [On.END] * 2 + [On.FAILURE, On.ERROR])
        for need in random.sample(before, random.randint(0, min(4, len(before))))
    }
    kind = random.choice([Kind.TASK] * 7 + [Kind.VALUE, Kind.MAP, Kind.WAIT])
    plan: dict[str, Any] = {"continues": random.random() < 0.15}
    if needs and kind is Kind.TASK and random.random() < 0.1:
        plan["delay"] = 5.0
    if needs and kind in (Kind.TASK, Kind.WAIT) and random.random() < 0.2:
        plan["expires"] = 8.0
    args = [_drawn_template(random, needs) for _ in range(random.randint(1, 2))]
    if kind is Kind.WAIT:
        args = []
    if kind is Kind.MAP:
        plan["body"] = {"do": {"task": "t.each", "args": [5]}}
        listed: list[Any] = [[], [1], ["a", {"b": 2}, [3]]]
        args = [random.choice([*listed, args[0]]) if needs else random.choice(listed)]
    return Shape(f"n{number}", kind, needs, args, plan)


def _drawn_template(random: Random, needs: Iterable[str]) -> Any:
    names = sorted(needs)
    if not names or random.random() < 0.2:
        return random.choice([1, "text", {"a": [2]}])
    name = random.choice(names)
    return random.choice(
        [
            {"$result": name},
            {"$result": name},
            {"$result": name, "path": ["v"]},
            {"a": [{"$result": name, "path": ["v", 1]}, {"$result": name}]},
            [{"$error": name, "path": [random.choice(["id", "state", "reason", "type"])]}],
        ]
    )


class CutOff(Exception):
    """The ledger's process ends here."""


class WorkflowMachine(RuleBasedStateMachine):
    """Subclasses say how a new ledger is made and how its rows are read."""

    url: str
    model: WorkflowModel

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.runner = asyncio.Runner()
        self.ledger = Ledger(self.url)
        self.released: list[str] = []
        self.ledger.on_release = lambda jobs: self.released.extend(job.id for job in jobs)
        self.began: set[str] = set()
        self.ids: dict[str, str] = {}
        self.former: set[str] = set()

    def run(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(call)

    def rows(self, query: str) -> list[dict[str, Any]]:
        raise NotImplementedError

    def close(self) -> None:
        self.run(self.ledger.close())
        self.runner.close()

    def teardown(self) -> None:
        try:
            if hasattr(self, "workflow_id"):
                self.bring_to_an_end()
        finally:
            self.close()

    def write(self, cut: int | None, method: str, *args: Any, **kwargs: Any) -> Any:
        """Cut off before its statement of that number, or its commit, and then made again."""
        call = getattr(self.ledger, method)
        if cut is None:
            return self.run(call(*args, **kwargs))
        with self.cut_off(cut), contextlib.suppress(CutOff):
            return self.run(call(*args, **kwargs))
        if hasattr(self, "workflow_id") and self.ids:
            self.it_is_what_the_model_says()
        return self.run(call(*args, **kwargs))

    @contextlib.contextmanager
    def cut_off(self, after: int) -> Iterator[None]:
        left = iter(range(after))

        def end() -> None:
            if next(left, None) is None:
                raise CutOff

        with before_trips(end, self.ledger):
            yield

    # What is done.

    @initialize(random=RANDOMS, size=st.integers(1, 9), cut=CUTS, timeout=st.sampled_from([None, None, 20.0]))
    def submit(self, random: Random, size: int, cut: int | None, timeout: float | None) -> None:
        shapes = drawn_shapes(random, size)
        made = flow(*shapes, timeout=timeout)
        self.workflow_id = made.workflow.id
        self.write(cut, "accept_once", [Request(flow=made)], self.now)
        self.model = WorkflowModel(shapes, timeout, self.now)

    @rule(seconds=st.sampled_from([0.5, 1, 3, 10]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(random=RANDOMS, cut=CUTS)
    def workers_report(self, random: Random, cut: int | None) -> None:
        """Of what runs mostly; of what has ended, too, and of what does not count any more."""
        running = self.model.named(*OPEN_BEGUN)
        ended = [name for name in self.model.named() if name not in running and self.ids[name] in self.began]
        by_id = {self.ids[name]: name for name in [*running * 4, *ended]}
        ids = sorted(by_id) + sorted(self.former)[:3]
        if not ids:
            return
        events = [self.drawn_event(random, random.choice(ids)) for _ in range(random.randint(1, 6))]
        events += random.sample(events, random.randint(0, min(2, len(events))))
        self.record(events, by_id, cut)

    def record(self, events: list[JobEvent], by_id: dict[str, str], cut: int | None) -> None:
        self.write(cut, "record", events, now=self.now)
        self.model.record([(by_id[each.job_id], each) for each in events if each.job_id in by_id], self.now)

    def drawn_event(self, random: Random, job_id: str) -> JobEvent:
        word = random.choice(random.choice([WORDS, ENDS, ENDS]))
        said = {"at": self.now + random.randint(-2, 1), "attempt": random.choice([1, 1, 2])}
        if random.random() < 0.7:
            said["root_id"] = self.workflow_id
        return told(job_id, **(said | word))

    def much_ends(self, random: Random, cut: int | None) -> None:
        by_id = {self.ids[name]: name for name in self.model.named(*OPEN_BEGUN)}
        ids = random.sample(sorted(by_id), len(by_id) * 2 // 3 + bool(by_id))
        self.record([self.drawn_event(random, job_id) for job_id in ids for _ in range(2)], by_id, cut)

    @precondition(lambda self: self.model.named(*OPEN_BEGUN))
    @rule(random=RANDOMS, cut=CUTS)
    def the_broker_confirms(self, random: Random, cut: int | None) -> None:
        names = random.sample(found := self.model.named(*OPEN_BEGUN), random.randint(1, len(found)))
        self.write(cut, "mark_queued", [self.ids[name] for name in names], self.now)
        for name in names:
            node = self.model.nodes[name]
            if node.state in (State.ACCEPTED, State.SCHEDULED):
                node.job = msgspec.structs.replace(node.job, state=State.QUEUED, changed_at=self.now)

    @precondition(lambda self: self.model.named(State.ACCEPTED))
    @rule(random=RANDOMS, cut=CUTS)
    def no_queue_takes_one(self, random: Random, cut: int | None) -> None:
        name = random.choice(self.model.named(State.ACCEPTED))
        self.write(cut, "fail_accepted", self.ids[name], Reason.REJECTED, "no queue", self.now)
        error = JobError(type="dure.errors.Unroutable", message="no queue")
        end = JobEvent(job_id=name, state=State.FAILURE, at=self.now, reason=Reason.REJECTED, error=error)
        if self.model.nodes[name].job.attempt is None:
            self.model.record([(name, end)], self.now)

    @precondition(lambda self: self.model.named(kind=Kind.WAIT))
    @rule(random=RANDOMS, cut=CUTS, payload=st.sampled_from([None, "go", {"v": [1, 2]}, [1]]))
    def a_signal_comes(self, random: Random, cut: int | None, payload: Any) -> None:
        name = random.choice(self.model.named(kind=Kind.WAIT))
        node = self.model.nodes[name]
        if node.state.final or SIGNAL not in node.unmet:
            with pytest.raises(JobEnded):
                self.run(self.ledger.signal(self.workflow_id, name, "again", self.now))
            return
        answer = self.write(cut, "signal", self.workflow_id, name, payload, self.now)
        self.model.signal(name, payload, self.now)
        assert answer.state is self.model.nodes[name].state

    @rule(random=RANDOMS, cut=CUTS)
    def somebody_cancels_a_node(self, random: Random, cut: int | None) -> None:
        name = random.choice(sorted(self.model.nodes))
        state = self.model.nodes[name].state
        if state in (State.SUCCESS, State.FAILURE):
            with pytest.raises(JobEnded):
                self.run(self.ledger.request_cancel(self.ids[name], self.now, due_at=self.now + 4))
            return
        self.write(cut, "request_cancel", self.ids[name], self.now, due_at=self.now + 4)
        self.model.cancel_job(name, self.now)

    @rule(wanted=st.sampled_from([False] * 9 + [True]), cut=CUTS)
    def somebody_cancels_it(self, wanted: bool, cut: int | None) -> None:
        if not wanted:
            return
        if self.model.state in (State.SUCCESS, State.FAILURE):
            with pytest.raises(WorkflowEnded):
                self.run(self.ledger.cancel_workflow(self.workflow_id, self.now, due_at=self.now + 4))
            return
        cancelled = self.write(cut, "cancel_workflow", self.workflow_id, self.now, due_at=self.now + 4)
        if self.model.state is not State.REVOKED:
            self.model.cancel(self.now)
        assert cancelled.workflow.state is self.model.state

    @rule(cut=CUTS)
    def what_is_overdue_ends(self, cut: int | None) -> None:
        ended = self.write(cut, "end_overdue", self.now, due_at=self.now + 4)
        assert [each.workflow.id for each in ended] == [self.workflow_id] * self.model.end_overdue(self.now)

    @rule(cut=CUTS)
    def what_has_expired_ends(self, cut: int | None) -> None:
        over = self.run(self.ledger.expired_jobs(self.now, limit=999))
        assert sorted(str(each.node) for each in over) == sorted(self.model.expired(self.now))
        ends = [(str(each.node), _expired(each, self.now)) for each in over]
        if ends:
            self.write(cut, "record", [end for _, end in ends], now=self.now)
            self.model.record(ends, self.now)

    @rule(random=RANDOMS, cut=CUTS)
    def somebody_runs_it_again(self, random: Random, cut: int | None) -> None:
        name = random.choice([None, random.choice(sorted(self.model.nodes))])
        self.run_again(name, cut)

    def run_again(self, name: str | None, cut: int | None) -> None:
        if not self.model.may_retry(name):
            with pytest.raises((WorkflowNotEnded, JobNotEnded)):
                self.run(self.ledger.retry_workflow(self.workflow_id, self.now, node=name))
            return
        workflow = self.write(cut, "retry_workflow", self.workflow_id, self.now, node=name)
        self.model.retry(name, self.now)
        assert workflow.state is self.model.state

    # What holds whatever was done.

    @invariant()
    def it_is_what_the_model_says(self) -> None:
        ours = f"workflow_id = '{self.workflow_id}'"
        rows = self.rows(f"SELECT * FROM jobs WHERE {ours}")
        current = [row for row in rows if row["replaced_by"] is None]
        self.ids = {row["node"]: row["id"] for row in current}
        assert len(self.ids) == len(current), "two nodes of one name"
        assert self.ids.keys() == self.model.nodes.keys()
        self.former = {r["id"] for r in rows if r["replaced_by"] is not None and r["id"] in self.began}
        (workflow,) = self.rows(f"SELECT * FROM workflows WHERE id = '{self.workflow_id}'")
        assert workflow["open"] == self.model.open == sum(not State(row["state"]).final for row in rows)
        assert workflow["state"] == self.model.state
        assert workflow["reason"] in self.model.reasons
        assert (workflow["finished_at"] is not None) == self.model.state.final
        assert (workflow["cancel_requested_at"] is not None) == self.model.cancel_requested
        began = [row["id"] for row in current if self.check_node(row)]
        needs = self.rows("SELECT edges.job_id, jobs.state FROM edges JOIN jobs ON jobs.id = edges.needs")
        open_needs = {row["job_id"] for row in needs if not State(row["state"]).final}
        assert not open_needs.intersection(began), "begun before its needs had ended"
        self.began |= set(began)
        for row in rows:
            assert (row["passed_on_at"] is not None) == State(row["state"]).final, row["node"]
        self.check_log(rows, workflow["state"])

    def check_log(self, rows: list[dict[str, Any]], state: str) -> None:
        """Its last word on each node is how the node is; it has none on one that is as it was submitted."""
        log = self.rows(f"SELECT * FROM feed WHERE workflow_id = '{self.workflow_id}' ORDER BY seq")
        last = {entry["job_id"]: _decoded(entry["body"])["state"] for entry in log}
        assert last.pop(None) == state
        for row in rows:
            confirmed = row["state"] == State.QUEUED and row["attempt"] is None  # of which there is no word
            if row["id"] in last:
                assert last[row["id"]] == row["state"] or confirmed, row["node"]
            else:
                assert row["state"] in (State.WAITING, State.ACCEPTED) or confirmed, row["node"]

    def check_node(self, row: dict[str, Any]) -> bool:
        """Whether it is seen begun for the first time."""
        node = self.model.nodes[row["node"]]
        job, kind, error = node.job, node.now.kind, _decoded(row["error"])
        found = {"state": row["state"], "reason": row["reason"], "error": error["type"] if error else None}
        wanted = {"state": job.state, "reason": job.reason, "error": job.error.type if job.error else None}
        found |= {"result": _decoded(row["result"]), "unmet": row["unmet"]}
        wanted |= {"result": self.with_ids(job.result), "unmet": row["unmet"]}
        if job.state is State.WAITING:
            wanted["unmet"] = len(node.unmet)
            assert row["due_at"] is None
        if kind in (Kind.TASK, Kind.WAIT) and not job.state.final:
            found["expires"], wanted["expires"] = row["expires"], job.expires
        if kind is Kind.TASK and job.state in OPEN_BEGUN:
            found |= {"args": _decoded(row["args"]), "eta": row["eta"]}
            wanted |= {"args": self.with_ids(job.args), "eta": job.eta}
        if job.state in (State.ACCEPTED, State.SCHEDULED):
            assert row["due_at"] is not None, "nobody would publish it"
        assert found == wanted, row["node"]
        return kind is Kind.TASK and job.state in OPEN_BEGUN and row["id"] not in self.began

    def with_ids(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self.ids[value[ID]] if ID in value else {key: self.with_ids(each) for key, each in value.items()}
        return [self.with_ids(each) for each in value] if isinstance(value, list) else value

    @invariant()
    def each_is_given_to_the_publisher_once(self) -> None:
        assert len(self.released) == len(set(self.released)) == self.model.released

    # And at last.

    def bring_to_an_end(self) -> None:
        """Every workflow ends, once what is begun ends and what is waited for comes."""
        rounds = len(self.model.nodes) * 4 + 10
        while self.model.open and rounds:
            rounds -= 1
            self.now += 1
            names = self.model.named(*OPEN_BEGUN)
            ends = [(name, told(self.ids[name], State.SUCCESS, self.now, attempt=9, result=[1])) for name in names]
            self.run(self.ledger.record([end for _, end in ends], now=self.now))
            self.model.record(ends, self.now)
            for name in self.model.named(State.WAITING, kind=Kind.WAIT):
                if (node := self.model.nodes[name]).state is State.WAITING and SIGNAL in node.unmet:
                    self.run(self.ledger.signal(self.workflow_id, name, 1, self.now))
                    self.model.signal(name, 1, self.now)
            self.check()
        workflow = self.run(self.ledger.workflow(self.workflow_id))
        assert workflow is not None
        assert workflow.state.final

    def check(self) -> None:
        self.it_is_what_the_model_says()
        self.each_is_given_to_the_publisher_once()


def _decoded(value: str | None) -> Any:
    return None if value is None else msgspec.json.decode(value)


def _expired(job: Job, at: float) -> JobEvent:
    attempt = max(1, job.attempts)
    return JobEvent(job_id=job.id, state=State.FAILURE, at=at, attempt=attempt, reason=Reason.EXPIRED)
