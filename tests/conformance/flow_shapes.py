"""Workflows written down row by row, as the ledger takes them."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from dure.job import Job, State
from dure.ledger import Ledger, Request
from dure.workflow import Edge, Flow, Kind, NewNode, On, Plan, Workflow
from tests.conformance.ledgers import NOW, told

FROM_A: list[Any] = [{"$result": "a"}]


@dataclass(frozen=True)
class Shape:
    """A node; `needs` by name, `args` with references."""

    name: str
    kind: Kind
    needs: dict[str, On]
    args: list[Any]
    plan: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)


def node(name: str, *needs: str, kind: Kind = Kind.TASK, args: list[Any] | None = None, **plan: Any) -> Shape:
    job = plan.pop("job", {})
    edges = dict.fromkeys(needs, On.SUCCESS) | plan.pop("on", {})
    return Shape(name, kind, edges, args or [], plan, job)


def flow(*shapes: Shape, output: Any = None, **fields: Any) -> Flow:
    workflow_id = f"flow-{uuid4().hex[:8]}"
    ids = {shape.name: f"{workflow_id}.{shape.name}" for shape in shapes}
    nodes = [_new_node(shape, workflow_id, ids[shape.name]) for shape in shapes]
    edges = [
        Edge(job_id=ids[shape.name], name=need, needs=ids[need], on=on)
        for shape in shapes
        for need, on in shape.needs.items()
    ]
    timeout = fields.get("timeout")
    given = {"id": workflow_id, "output": output, "created_at": NOW, "changed_at": NOW}
    given |= {"deadline": NOW + timeout if timeout else None} | fields
    return Flow(workflow=Workflow(**given), nodes=tuple(nodes), edges=tuple(edges))


def _new_node(shape: Shape, workflow_id: str, job_id: str) -> NewNode:
    task = "t.add" if shape.kind is Kind.TASK else f"dure.{shape.kind.value}"
    starts = shape.kind is Kind.TASK and not shape.needs
    given = {"args": shape.args, "kwargs": {}, "queue": "q" if shape.kind is Kind.TASK else None}
    job = Job(
        **given
        | {"id": job_id, "task": task, "workflow_id": workflow_id, "node": shape.name}
        | {"state": State.ACCEPTED if starts else State.WAITING, "created_at": NOW, "changed_at": NOW}
        | shape.job
    )
    return NewNode(
        job=job,
        plan=Plan(kind=shape.kind, args=shape.args if shape.needs and shape.args else None, **shape.plan),
        unmet=len(shape.needs) + (shape.kind is Kind.WAIT),
        due_at=NOW if starts else None,
    )


async def submitted(ledger: Ledger, *shapes: Shape, output: Any = None, **fields: Any) -> Flow:
    made = flow(*shapes, output=output, **fields)
    await ledger.accept_once([Request(flow=made)], NOW)
    return made


async def current(ledger: Ledger, made: Flow, name: str) -> Job:
    found = await ledger.node(made.workflow.id, name)
    assert found is not None
    return found


async def states(ledger: Ledger, made: Flow) -> dict[str, str]:
    view = await ledger.workflow_view(made.workflow.id)
    assert view is not None
    return {str(each.job.node): each.job.state.value for each in view.nodes}


async def state(ledger: Ledger, made: Flow) -> tuple[State, str | None]:
    found = await ledger.workflow(made.workflow.id)
    assert found is not None
    return found.state, found.reason


async def begin(ledger: Ledger, made: Flow, *names: str, at: float = NOW + 10) -> None:
    ids = [(await current(ledger, made, name)).id for name in names]
    await ledger.record([told(job_id, State.STARTED, at) for job_id in ids])


async def end(
    ledger: Ledger, made: Flow, *names: str, as_: State = State.SUCCESS, at: float = NOW + 20, **fields: Any
) -> None:
    """A worker's word that these have ended."""
    ids = [(await current(ledger, made, name)).id for name in names]
    await ledger.record([told(job_id, as_, at, **({"root_id": made.workflow.id} | fields)) for job_id in ids])


async def chain(ledger: Ledger, **fields: Any) -> Flow:
    return await submitted(
        ledger,
        node("a"),
        node("b", "a", args=FROM_A),
        node("c", "b", args=[{"$result": "b"}, {"$literal": {"$result": "b"}}]),
        output={"is": {"$result": "c"}},
        **fields,
    )


async def ran(ledger: Ledger, made: Flow, *names: str, **results: Any) -> None:
    for name in names:
        await end(ledger, made, name, result=results.get(name), has_result=True)
