"""Steps as the rows of a ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uuid_utils import uuid7

from dure.job import Job, State
from dure.workflow import Edge, Kind, NewNode, Plan, references, resolve
from dure.workflows.compile import Step

_TASK = {Kind.VALUE: "dure.value", Kind.MAP: "dure.map", Kind.WAIT: "dure.wait"}


def rows_of(
    steps: Sequence[Step],
    workflow_id: str,
    now: float,
    *,
    queue_of: Callable[[str], str],
    met: Mapping[str, str] = {},
) -> tuple[list[NewNode], list[Edge], dict[str, str]]:
    """The rows, their edges, and the ids of the jobs by the names of the steps.

    `met` are nodes that were there before and have ended, by the names that the steps call them: they are no longer
    waited for. What needs nothing is ready: a TASK to be published, at a `due_at` that the caller sets unless it has a
    time of its own; anything that needs `met` nodes only, a VALUE and a MAP are for the ledger to begin.
    """
    ids = {step.name: str(uuid7()) for step in steps}
    nodes = [_node(step, ids[step.name], workflow_id, now, queue_of, met) for step in steps]
    known = {**met, **ids}
    edges = [
        Edge(job_id=ids[step.name], name=name, needs=known[name], on=on)
        for step in steps
        for name, on in step.needs.items()
    ]
    return nodes, edges, ids


def _node(
    step: Step, job_id: str, workflow_id: str, now: float, queue_of: Callable[[str], str], met: Mapping[str, str]
) -> NewNode:
    args, args_template = _settled(step.args)
    kwargs, kwargs_template = _settled(step.kwargs)
    unmet = sum(name not in met for name in step.needs)
    begins = step.kind is Kind.TASK and not step.needs
    waits_alone = step.kind is Kind.WAIT and not step.needs
    eta, expires = step.eta, step.expires
    if begins and step.delay is not None:
        eta = round(now + step.delay, 6)
    if (begins or waits_alone) and step.expires_in is not None:
        expires = round(now + step.expires_in, 6)
    scheduled = begins and eta is not None and eta > now
    job = Job(
        id=job_id,
        task=step.task or _TASK[step.kind],
        state=State.WAITING if not begins else State.SCHEDULED if scheduled else State.ACCEPTED,
        args=args,
        kwargs=kwargs,
        queue=step.queue or (queue_of(_routed_by(step, step.task)) if step.task else None),
        priority=step.priority,
        retries=step.retries,
        time_limit=step.time_limit,
        tags=step.tags,
        root_id=workflow_id,
        workflow_id=workflow_id,
        node=step.name,
        created_at=now,
        changed_at=now,
        eta=eta,
        expires=expires,
    )
    plan = Plan(
        kind=step.kind,
        args=args_template,
        kwargs=kwargs_template,
        delay=step.delay,
        expires=step.expires_in,
        continues=step.continues,
        body=step.body,
    )
    due_at = eta if scheduled else 0.0 if begins else None
    return NewNode(job=job, plan=plan, unmet=unmet + (step.kind is Kind.WAIT), due_at=due_at)


def _routed_by(step: Step, task: str) -> str:
    """Celery's own tasks run one of the application's, and go where that goes."""
    inner = step.kwargs.get("task")
    named = inner.get("task") if isinstance(inner, dict) and task.startswith("celery.") else None
    return named if isinstance(named, str) else task


def _settled(template: Any) -> tuple[Any, Any]:
    """What stands in the job, and the template where there is anything to be filled in."""
    if any(True for _ in references(template)):
        return template, template
    return resolve(template, {}), None
