"""What a workflow comes to, in plain Python and by name: no rows, no ids, no counters, one node after the other."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from dure.event import JobEvent, fold
from dure.job import Job, JobError, Reason, State
from dure.workflow import Kind, On
from tests.conformance.flow_shapes import Shape

SIGNAL = "$signal"
ID = "$id"  # {ID: name} stands for the id of the job that counts under the name, which only the ledger knows

OPEN_BEGUN = {State.ACCEPTED, State.SCHEDULED, State.QUEUED, State.STARTED, State.RETRY}


class Missing(Exception):
    """A reference leads nowhere."""


@dataclass
class Node:
    shape: Shape
    job: Job
    unmet: set[str]
    is_passed_on: bool = False
    became: Shape | None = None  # what it stands for now: the VALUE of a map or of a workflow that was returned
    made: list[str] = field(default_factory=list)
    payload: Any = None

    @property
    def now(self) -> Shape:
        return self.became or self.shape

    @property
    def state(self) -> State:
        return self.job.state

    @property
    def has_failed(self) -> bool:
        is_bad = self.state in (State.FAILURE, State.REVOKED) and self.job.reason != Reason.SKIPPED
        return is_bad and not self.shape.plan.get("continues", False)


class WorkflowModel:
    def __init__(self, shapes: Iterable[Shape], timeout: float | None, now: float) -> None:
        self.now = now
        self.nodes: dict[str, Node] = {}
        self.state = State.STARTED
        self.reasons: set[str | None] = {None}  # one of them is the workflow's
        self.cancel_requested = False
        self.timeout = timeout
        self.deadline = None if timeout is None else now + timeout
        self.released = 0
        self.empty: list[Node] = []  # maps of no items, which end in the next round
        for shape in shapes:
            self._add(shape)
        for node in list(self.nodes.values()):
            if node.now.kind is Kind.TASK and not node.unmet:
                self._set(node, state=State.ACCEPTED, args=node.now.args)
        self._begin_what_is_ready(list(self.nodes))
        self._settle()

    def _add(self, shape: Shape) -> Node:
        assert shape.name not in self.nodes
        job = Job(id=shape.name, state=State.WAITING, args=shape.args, kwargs={}, created_at=self.now)
        node = self.nodes[shape.name] = Node(shape, job, _needs_of(shape))
        return node

    # What is seen.

    @property
    def open(self) -> int:
        return sum(not node.state.final for node in self.nodes.values())

    def named(self, *states: State, kind: Kind = Kind.TASK) -> list[str]:
        return sorted(
            name for name, n in self.nodes.items() if n.now.kind is kind and (n.state in states or not states)
        )

    # What is done.

    def record(self, told: Iterable[tuple[str, JobEvent]], now: float) -> None:
        self.now = now
        for name, event in told:
            self.nodes[name].job = fold(self.nodes[name].job, event)
        self._settle()

    def signal(self, name: str, payload: Any, now: float) -> None:
        self.now = now
        node = self.nodes[name]
        if SIGNAL in node.unmet:
            node.unmet.discard(SIGNAL)
            node.payload = payload
            if not node.unmet:
                self._begin(node)
        self._settle()

    def cancel_job(self, name: str, now: float) -> None:
        self.now = now
        node = self.nodes[name]
        if node.state is State.STARTED:
            self._set(node, cancel_requested_at=now)
        elif not node.state.final:
            self._set(
                node, state=State.REVOKED, reason=Reason.REVOKED, cancel_requested_at=now, result=None, error=None
            )
        self._settle()

    def cancel(self, now: float) -> None:
        self.cancel_requested = True
        self._stop(now)

    def end_overdue(self, now: float) -> bool:
        if self.state.final or self.deadline is None or self.deadline > now:
            return False
        self.state, self.reasons = State.FAILURE, {Reason.TIME_LIMIT}
        self._stop(now)
        return True

    def _stop(self, now: float) -> None:
        self.now = now
        for node in self.nodes.values():
            if node.state is State.STARTED:
                self._set(node, cancel_requested_at=node.job.cancel_requested_at or now)
            elif not node.state.final:
                gone = {"state": State.REVOKED, "reason": Reason.REVOKED, "result": None, "error": None}
                self._set(node, **gone, cancel_requested_at=now)
        self._settle()

    def expired(self, now: float) -> list[str]:
        """Whose time to be begun, or to be signalled, is over."""
        not_begun = {State.ACCEPTED, State.SCHEDULED, State.QUEUED, State.WAITING}
        found = [(name, node.job) for name, node in self.nodes.items() if node.state in not_begun]
        return [n for n, job in found if job.started_at is None and job.expires is not None and job.expires < now]

    def would_run_again(self, name: str | None) -> set[str]:
        """All that would be run again from there, with what nodes had made that would be made anew."""
        reached = {each for each, node in self.nodes.items() if node.has_failed} if name is None else {name}
        while True:
            more = {n for n, node in self.nodes.items() if reached & (node.now.needs.keys() | node.shape.needs.keys())}
            if more <= reached:
                return reached
            reached |= more

    def would_be_made_anew(self, reached: set[str], name: str | None) -> set[str]:
        """Of those that stand for what they made: who has a need that is run again, or made none to blame."""
        return {
            each
            for each in reached
            if (node := self.nodes[each]).became is not None
            and (each == name or node.shape.needs.keys() & reached or not reached & set(node.made))
        }

    def may_retry(self, name: str | None) -> bool:
        """Whether nothing stands in the way: a workflow that is still open, or a node that runs."""
        if name is None and (not self.state.final or self.open):
            return False
        if name is not None and not self.state.final and self.cancel_requested:
            return False
        if name is not None and not self.nodes[name].state.final:
            return False
        reached = self.would_run_again(name)
        gone = reached | self.made_by(self.would_be_made_anew(reached, name))
        return not any(self.nodes[each].state in OPEN_BEGUN for each in gone)

    def made_by(self, names: Iterable[str]) -> set[str]:
        found = {made for name in names for made in self.nodes[name].made if made in self.nodes}
        return found | self.made_by(found) if found else found

    def retry(self, name: str | None, now: float) -> None:
        self.now = now
        reached = self.would_run_again(name)
        if not reached:
            return
        anew = self.would_be_made_anew(reached, name)
        gone = self.made_by(anew)
        for each in gone:
            del self.nodes[each]
        for each in anew - gone:
            self.nodes[each].made, self.nodes[each].became = [], None
        reached -= gone
        for each in reached:
            self._reset(self.nodes[each])
        kept = {need for each in reached for need in self.nodes[each].now.needs} - reached
        kept = {need for need in kept if self.nodes[need].state.final}
        for node in self.nodes.values():
            if node.state is State.WAITING:
                node.unmet |= kept & node.now.needs.keys()
        if self.state.final:
            self.state, self.reasons, self.cancel_requested = State.STARTED, {None}, False
            self.deadline = None if self.timeout is None else now + self.timeout
        for each in kept:
            self.nodes[each].is_passed_on = False
        self._settle()
        self._begin_what_is_ready(reached)
        self._settle()

    def _reset(self, node: Node) -> None:
        """As it was before it began; one that has not begun keeps its signal."""
        name, shape = node.shape.name, node.now
        has_signal = node.state is State.WAITING and shape.kind is Kind.WAIT and SIGNAL not in node.unmet
        node.job = Job(id=name, state=State.WAITING, args=shape.args, kwargs={}, created_at=self.now)
        node.unmet = _needs_of(shape) - ({SIGNAL} if has_signal else set())
        node.is_passed_on = False

    # What comes of it.

    def _settle(self) -> None:
        """In rounds: what ends in one is told in the next, for of several needs that hinder a node the first counts."""
        while (ended := self._untold()) or self.empty:
            empty, self.empty = self.empty, []
            for node in ended.values():
                node.is_passed_on = True
            grown = {name for name, node in ended.items() if self._grows(node)}
            told = ended.keys() - grown
            for node in list(self.nodes.values()):
                if node.state is State.WAITING and told & node.now.needs.keys():
                    self._tell(node, sorted(told & node.now.needs.keys()))
            for node in empty:
                self._begin(node)
        if self.state is State.STARTED and self.nodes and not self.open:
            self._finish()

    def _untold(self) -> dict[str, Node]:
        return {name: node for name, node in self.nodes.items() if node.state.final and not node.is_passed_on}

    def _grows(self, node: Node) -> bool:
        result = node.job.result
        if node.state is not State.SUCCESS or node.now.kind is not Kind.TASK:
            return False
        if not isinstance(result, dict) or "$workflow" not in result or self.state.final or self.cancel_requested:
            return False
        name = f"{node.shape.name}.sub"
        self._grow(node, {name: result["$workflow"]["nodes"]["sub"]["args"]}, {"$result": name})
        return True

    def _tell(self, node: Node, needs: list[str]) -> None:
        """These of its needs have ended. Where several hinder it, the first by name says how it ends."""
        for name in needs:
            on, need = node.now.needs[name], self.nodes[name]
            if not _is_met(on, need):
                if _is_unwanted(on, need):
                    return self._set(node, state=State.REVOKED, reason=Reason.SKIPPED)
                return self._fail(node, "UpstreamFailed")
            node.unmet.discard(name)
        if not node.unmet:
            self._begin(node)
        elif node.unmet == {SIGNAL}:
            self._set(node, expires=self._expiry(node))
        return None

    def _finish(self) -> None:
        failed = [node for node in self.nodes.values() if node.has_failed]
        own = [node for node in failed if node.job.reason != Reason.UPSTREAM_FAILED] or failed
        first = min((node.job.finished_at or 0.0 for node in own), default=0.0)
        self.reasons = {node.job.reason for node in own if node.job.finished_at == first}
        if not failed:
            self.state, self.reasons = State.SUCCESS, {None}
        elif self.cancel_requested:
            self.state, self.reasons = State.REVOKED, {Reason.REVOKED}
        else:
            self.state = State.FAILURE

    def _fail(self, node: Node, type_: str) -> None:
        error = JobError(type=type_, message="")
        self._set(node, state=State.FAILURE, reason=Reason.UPSTREAM_FAILED, error=error)

    def _begin_what_is_ready(self, names: Iterable[str]) -> None:
        for node in [self.nodes[name] for name in names]:
            if node.state is State.WAITING and not node.unmet and node not in self.empty:
                self._begin(node)
            elif node.state is State.WAITING and node.unmet == {SIGNAL}:
                self._set(node, expires=self._expiry(node))

    def _expiry(self, node: Node) -> float | None:
        expires = node.now.plan.get("expires")
        return node.job.expires if expires is None else self.now + expires

    def _begin(self, node: Node) -> None:
        shape = node.now
        try:
            args = self._filled(shape.args)
        except Missing:
            return self._fail(node, "NoSuchPart")
        if shape.kind is Kind.WAIT:
            return self._set(node, state=State.SUCCESS, result=node.payload)
        if shape.kind is Kind.VALUE:
            return self._set(node, state=State.SUCCESS, result=args[0], args=args)
        if shape.kind is Kind.MAP:
            if not isinstance(args[0], list):
                return self._fail(node, "NotAList")
            own = shape.plan["body"]["do"]["args"]
            made = {f"{shape.name}.{number}": [item, *own] for number, item in enumerate(args[0])}
            return self._grow(node, made, [{"$result": name} for name in made])
        delay, expires = shape.plan.get("delay"), shape.plan.get("expires")
        self._set(
            node,
            state=State.SCHEDULED if delay else State.ACCEPTED,
            args=args,
            eta=self.now + delay if delay else None,
            expires=self.now + expires if expires else None,
        )
        self.released += not delay
        return None

    def _grow(self, node: Node, made: dict[str, list[Any]], output: Any) -> None:
        """It makes jobs of these names, with these arguments, and stands for their results from now on."""
        name, continues = node.shape.name, node.shape.plan.get("continues", False)
        node.became = Shape(name, Kind.VALUE, dict.fromkeys(made, On.SUCCESS), [output], {"continues": continues})
        node.made = list(made)
        self._reset(node)
        for each, args in made.items():
            self._begin(self._add(Shape(each, Kind.TASK, {}, args)))
        if not made:
            self.empty.append(node)

    def _filled(self, template: Any) -> Any:
        if isinstance(template, list):
            return [self._filled(each) for each in template]
        if not isinstance(template, dict):
            return template
        if "$result" in template:
            node = self.nodes[template["$result"]]
            return _part(node.job.result, template.get("path", [])) if node.state is State.SUCCESS else None
        if "$error" in template:
            job = self.nodes[template["$error"]].job
            told = {"id": {ID: template["$error"]}, "state": job.state.value, "reason": job.reason}
            return _part(told | {"type": job.error.type if job.error else None}, template["path"])
        return {key: self._filled(value) for key, value in template.items()}

    def _set(self, node: Node, **values: Any) -> None:
        if values.get("state") in (State.SUCCESS, State.FAILURE, State.REVOKED):
            values |= {"finished_at": self.now, "changed_at": self.now, "attempt": None}
        node.job = structs.replace(node.job, **values)


def _needs_of(shape: Shape) -> set[str]:
    return set(shape.needs) | ({SIGNAL} if shape.kind is Kind.WAIT else set())


def _is_met(on: On, need: Node) -> bool:
    if on is On.END:
        return True
    if on is On.SUCCESS:
        return need.state is State.SUCCESS
    is_own = need.job.reason != Reason.UPSTREAM_FAILED
    return need.state is State.FAILURE and (is_own or on is On.FAILURE)


def _is_unwanted(on: On, need: Node) -> bool:
    """A branch not taken, rather than a failure."""
    return on is not On.SUCCESS or need.job.reason == Reason.SKIPPED


def _part(value: Any, path: list[Any]) -> Any:
    for step in path:
        try:
            if isinstance(value, dict) is isinstance(step, int):
                raise Missing
            value = value[step]
        except (KeyError, IndexError, TypeError):
            raise Missing from None
    return value
