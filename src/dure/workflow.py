"""A workflow: jobs that need one another, each a row from the first moment, each need an edge.

A node's arguments may hold references, which are filled in when its needs have ended:

- `{"$result": "node", "path": ["items", 0]}`: what the node returned, or a part of it; null where it failed and is
  allowed to;
- `{"$error": "node", "path": ["message"]}`: how it failed: `id`, `task`, `args`, `kwargs`, `state`, `reason`, `type`,
  `message` and `traceback`;
- `{"$item": true, "path": […]}`: in the body of a map, the item;
- `{"$literal": …}`: what stands in it is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Struct

from dure.errors import DureError
from dure.job import Job, JobError, State

RESULT, ERROR, ITEM, LITERAL = "$result", "$error", "$item", "$literal"
PATH = "path"
WORKFLOW = "$workflow"
WORKFLOW_BYTES = 8_388_608  # the most that the JSON of one may have which a task returns; RabbitMQ takes 16 MiB

MAX_NODES = 20_000  # of one workflow, with those that are made on the way
ERROR_PARTS = ("id", "task", "args", "kwargs", "state", "reason", "type", "message", "traceback")

Path = Sequence[str | int]


class Kind(StrEnum):
    """What a node does once its needs are met.

    TASK publishes its job. VALUE ends at once with its first argument. MAP makes nodes of its body for each item of its
    first argument, becomes their VALUE, and ends when they have. WAIT ends when it is signalled, with what the signal
    brought.
    """

    TASK = "task"
    VALUE = "value"
    MAP = "map"
    WAIT = "wait"


class On(StrEnum):
    """Which end of its need an edge lets pass; at the other one the dependant ends: upstream-failed where it wanted a
    success, skipped where it wanted a failure. ERROR is a failure of the need's own, not one of what it needed."""

    SUCCESS = "success"
    END = "end"
    FAILURE = "failure"
    ERROR = "error"


class Plan(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node's row keeps beside its job.

    `args` and `kwargs` are templates, None where they hold no reference. `delay` and `expires` are seconds from the
    moment in which the needs are met. A node that `continues` lets its dependants run though it failed. `body` is a
    map's, in the form of a submitted workflow.
    """

    kind: Kind = Kind.TASK
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    delay: float | None = None
    expires: float | None = None
    continues: bool = False
    body: Any = None


class Edge(Struct, frozen=True, kw_only=True):
    """`job_id` waits for the job `needs`, which its templates call `name`."""

    job_id: str
    name: str
    needs: str
    on: On = On.SUCCESS


class NewNode(Struct, frozen=True, kw_only=True):
    """A node as it is accepted; `unmet` counts its edges, and the signal of a WAIT. `due_at` is the relay's."""

    job: Job
    plan: Plan
    unmet: int = 0
    due_at: float | None = None


class Workflow(Struct, frozen=True, kw_only=True):
    """The record of a workflow. It is STARTED until no node is open, or its time is over.

    `output` is the template of its result, over the names of its nodes. `timeout` is in seconds, `deadline` when it is
    over. `queue` is where nodes go that are made on the way and name none.
    """

    id: str
    name: str | None = None
    state: State = State.STARTED
    reason: str | None = None
    output: Any = None
    queue: str | None = None
    timeout: float | None = None
    deadline: float | None = None
    origin: str = "dure"
    created_at: float = 0.0
    finished_at: float | None = None
    cancel_requested_at: float | None = None
    changed_at: float = 0.0


class Flow(Struct, frozen=True, kw_only=True):
    """A workflow as it is accepted: all of its rows."""

    workflow: Workflow
    nodes: tuple[NewNode, ...]
    edges: tuple[Edge, ...]


class Reference(NamedTuple):
    """Where a template refers to what: `place` is its path in the template, `kind` one of RESULT, ERROR and ITEM."""

    place: tuple[str | int, ...]
    kind: str
    name: str
    path: tuple[str | int, ...]


_SIGNATURE = frozenset({"task", "args", "kwargs", "options", "subtask_type", "immutable"})


def is_workflow(result: Any) -> bool:
    """Whether a task's result is to take its place: `{"$workflow": …}`, or one of Celery's signatures."""
    if not isinstance(result, dict):
        return False
    return result.keys() == {WORKFLOW} or result.keys() - {"chord_size"} == _SIGNATURE


class Outcome(Struct, frozen=True, kw_only=True):
    """How a need ended, as references see it. What it returned may not be known (`is_kept`)."""

    job_id: str
    state: State
    result: Any = None
    is_kept: bool = True
    error: JobError | None = None
    reason: str | None = None
    task: str | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None

    @classmethod
    def of(cls, job: Job) -> Outcome:
        return cls(
            job_id=job.id,
            state=job.state,
            is_kept=is_kept(job.result, job.result_repr),
            result=job.result,
            error=job.error,
            reason=job.reason,
            task=job.task,
            args=job.args,
            kwargs=job.kwargs,
        )


def is_kept(result: Any, result_repr: str | None) -> bool:
    """Whether this is all of the result. A stock worker's event tells the repr of a value; None is the one that this
    says all of."""
    return result is not None or result_repr in (None, "None")


class NoSuchPart(DureError):
    """A reference asks for a part of a result that is not there."""

    def __init__(self, name: str, path: Path, at: int) -> None:
        whole = "".join(f"[{step!r}]" for step in path[: at + 1])
        super().__init__(f"the result of {name!r} has no {whole}")


class ResultNotKept(NoSuchPart):
    """The need succeeded, and what it returned is not in the ledger."""

    def __init__(self, name: str) -> None:
        DureError.__init__(
            self,
            f"what {name!r} returned is not in the ledger: it is over DURE_RESULT_LIMIT, or a stock worker ran it "
            "and DURE_RESULT_BACKEND does not say where its results are",
        )


def references(template: Any, place: tuple[str | int, ...] = ()) -> Iterator[Reference]:
    """Every reference in it; what is below `$literal` is none."""
    if isinstance(template, dict):
        if LITERAL in template:
            return
        for kind in (RESULT, ERROR, ITEM):
            if kind in template:
                yield Reference(place, kind, str(template[kind]), tuple(template.get(PATH, ())))
                return
        for key, value in template.items():
            yield from references(value, (*place, key))
    elif isinstance(template, list | tuple):
        for index, value in enumerate(template):
            yield from references(value, (*place, index))


def resolve(template: Any, outcomes: Mapping[str, Outcome]) -> Any:
    """The template with its references filled in. Raises NoSuchPart."""
    if isinstance(template, list | tuple):
        return [resolve(value, outcomes) for value in template]
    if not isinstance(template, dict):
        return template
    if LITERAL in template:
        return template[LITERAL]
    path = template.get(PATH, ())
    if RESULT in template:
        name = template[RESULT]
        outcome = outcomes[name]
        if not outcome.is_kept:
            raise ResultNotKept(name)
        return part(name, outcome.result, path) if outcome.state is State.SUCCESS else None
    if ERROR in template:
        name = template[ERROR]
        return part(name, _told(outcomes[name]), path)
    return {key: resolve(value, outcomes) for key, value in template.items()}


def part(name: str, value: Any, path: Path) -> Any:
    """What `path` leads to in the result of `name`. Raises NoSuchPart."""
    for at, step in enumerate(path):
        fits = (
            isinstance(value, list) if isinstance(step, int) and not isinstance(step, bool) else isinstance(value, dict)
        )
        try:
            if not fits:
                raise NoSuchPart(name, path, at)
            value = value[step]
        except (KeyError, IndexError):
            raise NoSuchPart(name, path, at) from None
    return value


def _told(outcome: Outcome) -> dict[str, Any]:
    error = outcome.error
    return {
        "id": outcome.job_id,
        "task": outcome.task,
        "args": outcome.args,
        "kwargs": outcome.kwargs,
        "state": outcome.state.value,
        "reason": outcome.reason,
        "type": error.type if error else None,
        "message": error.message if error else None,
        "traceback": error.traceback if error else None,
    }
