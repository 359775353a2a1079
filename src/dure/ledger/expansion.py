"""Nodes that are made on the way: of a map's body for each item, and of a workflow that a task returned; pure.

The node that made them stays, SUCCESS, and is replaced by a VALUE of its name, which needs them and ends with their
results; whoever needed the maker needs the VALUE then. All of them have the maker as their parent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog
from msgspec import Struct, structs
from uuid_utils import uuid7

from dure.errors import InvalidSubmission
from dure.job import Job, State
from dure.ledger.beginning import VALUE_TASK, Items, Waiting, failed
from dure.workflow import MAX_NODES, Edge, Kind, NewNode, Plan
from dure.workflows.compile import Compiled, compile_spec, expand, sub_workflow
from dure.workflows.rows import rows_of
from dure.workflows.spec import read_spec

log = structlog.get_logger("dure")


class Invalid(Struct, frozen=True):
    """Nothing can be made of it; why."""

    message: str


class Plot(Struct, frozen=True, kw_only=True):
    """What `maker` asks for. `met` are nodes outside that it may refer to, by the names that it calls them."""

    maker: Job
    plan: Plan
    compiled: Compiled | Invalid
    met: Mapping[str, str] = {}

    @property
    def workflow_id(self) -> str:
        return str(self.maker.workflow_id)

    @property
    def tasks(self) -> set[str]:
        return set() if isinstance(self.compiled, Invalid) else {s.task for s in self.compiled.steps if s.task}

    @property
    def size(self) -> int:
        """How many nodes there will be more."""
        return 1 if isinstance(self.compiled, Invalid) else 1 + len(self.compiled.steps)


class Made(Struct, frozen=True, kw_only=True):
    maker: Job
    value: NewNode
    nodes: tuple[NewNode, ...] = ()
    edges: tuple[Edge, ...] = ()


def of_items(found: Items, met: Mapping[str, str]) -> Plot:
    node = found.node
    name = node.job.node or node.job.id
    compiled = _compiled(lambda: expand(node.plan.body, found.items, name), node.job)
    return Plot(maker=node.job, plan=node.plan, compiled=compiled, met=met)


def of_result(job: Job, plan: Plan) -> Plot | None:
    """None where the task returned anything else."""
    if job.state is not State.SUCCESS or plan.kind is not Kind.TASK or not isinstance(job.result, dict):
        return None
    spec = sub_workflow(job.result)
    if spec is None:
        return None
    compiled = _compiled(lambda: compile_spec(read_spec(spec), prefix=job.node or job.id), job)
    return Plot(maker=job, plan=plan, compiled=compiled)


def _compiled(compile_: Callable[[], Compiled], maker: Job) -> Compiled | Invalid:
    try:
        return compile_()
    except InvalidSubmission as exc:
        return Invalid(str(exc))
    except Exception as exc:  # whatever a task returned, it must not keep the events of others from being recorded
        log.exception("a workflow could not be laid out", job=maker.id)
        return Invalid(f"it could not be laid out: {type(exc).__name__}: {exc}")


def bounded(plots: Sequence[Plot], sizes: Mapping[str, int]) -> list[Plot]:
    """Those that would be too many for a workflow come to nothing; `sizes` is how many nodes each has."""
    sizes = dict(sizes)
    kept = []
    for plot in plots:
        before = sizes.get(plot.workflow_id, 0)
        is_too_much = before + plot.size > MAX_NODES
        message = f"{plot.size} nodes more would be too many: a workflow has at most {MAX_NODES}"
        kept.append(structs.replace(plot, compiled=Invalid(message)) if is_too_much else plot)
        sizes[plot.workflow_id] = before + kept[-1].size
    return kept


def made(plot: Plot, now: float, lease: float, queues: Mapping[str, str], queue: str) -> Made:
    """`queues` are those of tasks, `queue` is that of all others."""
    value = _value(plot.maker, now)
    if isinstance(plot.compiled, Invalid):
        plan = Plan(kind=Kind.VALUE, continues=plot.plan.continues)
        end = failed(Waiting(job=value, plan=plan), "InvalidWorkflow", plot.compiled.message, now)
        return Made(maker=plot.maker, value=NewNode(job=end.job, plan=plan))
    compiled = plot.compiled
    nodes, edges, ids = rows_of(
        compiled.steps, plot.workflow_id, now, queue_of=lambda task: queues.get(task, queue), met=plot.met
    )
    needs = [Edge(job_id=value.id, name=name, needs=ids[name], on=on) for name, on in compiled.ends.items()]
    plan = Plan(kind=Kind.VALUE, args=[compiled.output], continues=plot.plan.continues)
    value = structs.replace(value, args=[compiled.output])
    return Made(
        maker=plot.maker,
        value=NewNode(job=value, plan=plan, unmet=len(needs)),
        nodes=tuple(_child(node, plot.maker, now + lease) for node in nodes),
        edges=(*edges, *needs),
    )


def _child(node: NewNode, maker: Job, due_at: float) -> NewNode:
    job = structs.replace(node.job, parent_id=maker.id)
    return structs.replace(node, job=job, due_at=due_at if job.state is State.ACCEPTED else node.due_at)


def _value(maker: Job, now: float) -> Job:
    return Job(
        id=str(uuid7()),
        task=VALUE_TASK,
        state=State.WAITING,
        args=[],
        kwargs={},
        origin=maker.origin,
        root_id=maker.workflow_id,
        parent_id=maker.id,
        workflow_id=maker.workflow_id,
        node=maker.node,
        created_at=now,
        changed_at=now,
    )
