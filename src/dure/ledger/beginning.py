"""What becomes of a node that waits, once its needs have ended; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any

from msgspec import Struct, structs

from dure.event import JobEvent, fold
from dure.job import Job, JobError, Reason, State
from dure.workflow import Edge, Kind, NewNode, NoSuchPart, On, Outcome, Plan, Workflow, references, resolve

WAIT_TASK = "dure.wait"
VALUE_TASK = "dure.value"


class Waiting(Struct, frozen=True, kw_only=True):
    """A node's row."""

    job: Job
    plan: Plan
    unmet: int = 0

    @classmethod
    def of(cls, node: NewNode) -> Waiting:
        return cls(job=node.job, plan=node.plan, unmet=node.unmet)

    @property
    def is_ready(self) -> bool:
        """Whether there is something to begin: also the time of a WAIT that lacks only its signal. What the signal
        brought is kept as its argument, until the node ends with it."""
        return self.unmet == 0 or (self.plan.kind is Kind.WAIT and self.unmet == 1 and not self.job.args)

    @property
    def names(self) -> set[str]:
        """What its templates refer to."""
        templates = (self.plan.args, self.plan.kwargs)
        return {reference.name for template in templates for reference in references(template)}

    def lacks(self, known: Collection[str]) -> bool:
        """Whether it refers to needs by other names than these; so may the body of a map."""
        return self.plan.kind is Kind.MAP or not self.names.issubset(known)


class Told(Struct, frozen=True, kw_only=True):
    """An edge from a need that has ended to a node that waits; `unmet` and `task` are the node's."""

    edge: Edge
    unmet: int
    task: str | None = None


class Weighed(Struct, frozen=True, kw_only=True):
    """What the ends are to the nodes that wait: how much is `left` unmet of each that may begin yet, and of each that
    may not any more the edge that says why. Those that are `touched` are to be looked at."""

    left: dict[str, int]
    hindered: dict[str, Edge]
    touched: set[str]


class Begun(Struct, frozen=True, kw_only=True):
    """A node as it is afterwards: to be published, ended, or still waiting for its signal."""

    job: Job
    unmet: int = 0
    due_at: float | None = None


class Items(Struct, frozen=True, kw_only=True):
    """A MAP has its list and ends; its body is to be made for each of these."""

    node: Waiting
    items: list[Any]
    begun: Begun


class Passing(Enum):
    """What the end of a need is to a dependant."""

    MET = "met"
    FAILED = "failed"
    SKIPPED = "skipped"


def passing(on: On, need: Job) -> Passing:
    """What a node wanted that was skipped is not wanted any more, so its dependants are skipped and not failed."""
    if on is On.END:
        return Passing.MET
    if need.state is State.SUCCESS:
        return Passing.MET if on is On.SUCCESS else Passing.SKIPPED
    if on is On.ERROR and need.reason == Reason.UPSTREAM_FAILED:
        return Passing.SKIPPED
    if on in (On.FAILURE, On.ERROR):
        return Passing.MET if need.state is State.FAILURE else Passing.SKIPPED
    return Passing.SKIPPED if need.reason == Reason.SKIPPED else Passing.FAILED


def weigh(told: Sequence[Told], ended: Mapping[str, Job]) -> Weighed:
    left: dict[str, int] = {}
    hindered: dict[str, Edge] = {}
    for each in told:
        edge = each.edge
        if passing(edge.on, ended[edge.needs]) is Passing.MET:
            left[edge.job_id] = left.get(edge.job_id, each.unmet) - 1
        else:
            hindered.setdefault(edge.job_id, edge)
    left = {job_id: unmet for job_id, unmet in left.items() if job_id not in hindered}
    waits = {each.edge.job_id for each in told if each.task == WAIT_TASK}
    ready = {job_id for job_id, unmet in left.items() if unmet == 0}
    return Weighed(left=left, hindered=hindered, touched=ready.union(hindered, waits))


def hindered(node: Waiting, edge: Edge, need: Job, now: float) -> Begun:
    """It can't begin, because of how this need ended."""
    if passing(edge.on, need) is Passing.SKIPPED:
        skipped = JobEvent(job_id=node.job.id, state=State.REVOKED, reason=Reason.SKIPPED, at=now)
        return Begun(job=fold(node.job, skipped), unmet=node.unmet)
    message = f"its need {edge.name!r} ended {need.state.value}" + (f" ({need.reason})" if need.reason else "")
    return failed(node, "UpstreamFailed", message, now)


def failed(node: Waiting, type_: str, message: str, now: float) -> Begun:
    error = JobError(type=type_, message=message)
    end = JobEvent(job_id=node.job.id, state=State.FAILURE, reason=Reason.UPSTREAM_FAILED, error=error, at=now)
    return Begun(job=fold(node.job, end), unmet=node.unmet)


def begun(node: Waiting, outcomes: Mapping[str, Outcome], now: float, lease: float) -> Begun | Items:
    """`outcomes` are those of its needs, by the names that its templates call them. `due_at` of a job that can be
    published at once is `lease` seconds from now: until then its publishing is the caller's."""
    job, plan = node.job, node.plan
    if plan.kind is Kind.WAIT:
        return _waited(node, now)
    try:
        args = job.args if plan.args is None else resolve(plan.args, outcomes)
        kwargs = job.kwargs if plan.kwargs is None else resolve(plan.kwargs, outcomes)
    except NoSuchPart as exc:
        return failed(node, type(exc).__name__, str(exc), now)
    except KeyError as exc:  # were it raised, no event of the batch could be recorded
        return failed(node, "NoSuchNode", f"it refers to {exc}, which it does not need", now)
    if plan.kind is Kind.TASK:
        return _released(structs.replace(job, args=args, kwargs=kwargs), plan, now, lease)
    value = args[0] if args else None
    return Begun(job=_succeeded(job, value, now)) if plan.kind is Kind.VALUE else _mapped(node, value, now)


def _mapped(node: Waiting, value: Any, now: float) -> Begun | Items:
    if not isinstance(value, list):
        return failed(node, "NotAList", f"a map needs a list, and was given {_kind_of(value)}", now)
    return Items(node=node, items=value, begun=Begun(job=_succeeded(node.job, None, now)))


def _waited(node: Waiting, now: float) -> Begun:
    if node.unmet == 0:
        return Begun(job=_succeeded(node.job, node.job.args[0] if node.job.args else None, now))
    expires = node.job.expires if node.plan.expires is None else now + node.plan.expires
    return Begun(job=structs.replace(node.job, expires=expires, changed_at=now), unmet=node.unmet)


def _released(job: Job, plan: Plan, now: float, lease: float) -> Begun:
    eta = job.eta if plan.delay is None else now + plan.delay
    expires = job.expires if plan.expires is None else now + plan.expires
    job = structs.replace(job, eta=eta, expires=expires, changed_at=now)
    if eta is not None and eta > now:
        return Begun(job=structs.replace(job, state=State.SCHEDULED), due_at=eta)
    return Begun(job=structs.replace(job, state=State.ACCEPTED), due_at=now + lease)


def _succeeded(job: Job, value: Any, now: float) -> Job:
    return fold(job, JobEvent(job_id=job.id, state=State.SUCCESS, result=value, has_result=True, at=now))


def _kind_of(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "an object")


def closed(workflow: Workflow, failure: str | None, now: float) -> Workflow:
    """With nothing open any more; `failure` is the reason of the node that failed first, if one has."""
    if failure is None:
        state, reason = State.SUCCESS, None
    elif workflow.cancel_requested_at is not None:
        state, reason = State.REVOKED, Reason.REVOKED.value
    else:
        state, reason = State.FAILURE, failure
    return structs.replace(workflow, state=state, reason=reason, finished_at=now)
