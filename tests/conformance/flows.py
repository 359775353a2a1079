"""Workflows built by hand, for the conformance suite of ledgers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from dure.job import Job, State
from dure.ledger import Ledger, Request
from dure.workflow import Edge, Flow, Kind, NewNode, On, Plan, Workflow, references
from tests.conformance.ledgers import NOW, Database, told

LATER = NOW + 10
OPEN = (State.WAITING, None)


def result(name: str, *path: str | int) -> dict[str, Any]:
    return {"$result": name, "path": list(path)} if path else {"$result": name}


class Draft:
    """Nodes by name; a node needs what it is told to, and what its templates refer to."""

    def __init__(self, **fields: Any) -> None:
        self.workflow = Workflow(id=f"w-{uuid4().hex[:12]}", queue="q", created_at=NOW, changed_at=NOW, **fields)
        self.nodes: dict[str, NewNode] = {}
        self.edges: list[Edge] = []

    def node(
        self,
        name: str,
        *args: Any,
        needs: Iterable[str] | Mapping[str, On] = (),
        kind: Kind = Kind.TASK,
        plan: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """Its id."""
        refers = {reference.name for reference in references([args, fields.get("kwargs", {})])}
        on = dict(needs) if isinstance(needs, Mapping) else dict.fromkeys(needs, On.SUCCESS)
        on |= {need: on.get(need, On.SUCCESS) for need in sorted(refers)}
        waits = bool(on) or kind is not Kind.TASK
        job = Job(
            **{
                "id": f"{name}-{uuid4().hex[:8]}",
                "task": "t.add" if kind is Kind.TASK else f"dure.{kind.value}",
                "state": State.WAITING if waits else State.ACCEPTED,
                "args": list(args),
                "kwargs": {},
                "queue": "q" if kind is Kind.TASK else None,
                "workflow_id": self.workflow.id,
                "node": name,
                "created_at": NOW,
                "changed_at": NOW,
            }
            | fields
        )
        templates = {"args": list(args), "kwargs": job.kwargs} if refers else {}
        self.nodes[name] = NewNode(
            job=job,
            plan=Plan(**({"kind": kind} | templates | dict(plan or {}))),
            unmet=len(on) + (kind is Kind.WAIT),
            due_at=None if waits else NOW,
        )
        self.edges += [
            Edge(job_id=job.id, name=need, needs=self.nodes[need].job.id, on=passes) for need, passes in on.items()
        ]
        return job.id

    def __getitem__(self, name: str) -> str:
        return self.nodes[name].job.id

    def flow(self) -> Flow:
        return Flow(workflow=self.workflow, nodes=tuple(self.nodes.values()), edges=tuple(self.edges))

    async def accepted(self, ledger: Ledger) -> Workflow:
        await ledger.accept_once([Request(flow=self.flow())], NOW)
        return self.workflow


async def ended(ledger: Ledger, *ids: str, at: float = NOW + 10, state: State = State.SUCCESS, **fields: Any) -> None:
    """A worker tells that these ended; each returned its id if it is not told what."""
    known = await ledger.some_jobs(ids)
    roots = {each: {"root_id": known[each].workflow_id} if each in known else {} for each in ids}
    await ledger.record([told(each, state, at, **roots[each], **_end(each, state, fields)) for each in ids], now=at)


def _end(job_id: str, state: State, fields: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {"result": job_id, "has_result": True} if state is State.SUCCESS else {"reason": "error"}
    return given | dict(fields)


async def states(ledger: Ledger, draft: Draft) -> dict[str, tuple[State, str | None]]:
    found = await ledger.some_jobs([draft[name] for name in draft.nodes])
    return {name: (found[draft[name]].state, found[draft[name]].reason) for name in draft.nodes}


async def job(ledger: Ledger, job_id: str) -> Job:
    found = await ledger.job(job_id)
    assert found is not None
    return found


async def outcome(ledger: Ledger, draft: Draft) -> tuple[State, str | None]:
    found = await ledger.workflow(draft.workflow.id)
    assert found is not None
    assert (found.finished_at is not None) is found.state.final
    return found.state, found.reason


def open_nodes(database: Database, draft: Draft) -> int:
    ((number,),) = database.rows(f"SELECT open FROM workflows WHERE id = '{draft.workflow.id}'")
    return int(number)


def note_releases(ledger: Ledger) -> list[Sequence[Job]]:
    released: list[Sequence[Job]] = []
    ledger.on_release = released.append
    return released
