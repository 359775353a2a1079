"""From what a caller asks for to a workflow: the form read, laid out as nodes and needs, and checked as a whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from msgspec import Struct
from uuid_utils import uuid7

from dure.client.catalogue import Catalogue
from dure.client.submission import Submission
from dure.errors import FieldError, InvalidSubmission
from dure.options import OPTION_NAMES
from dure.task import Task
from dure.workflow import MAX_NODES, Flow, Workflow
from dure.workflows.canvas import spec_of
from dure.workflows.check import check, task_names
from dure.workflows.compile import Compiled, compile_spec
from dure.workflows.rows import rows_of
from dure.workflows.spec import Spec, read_spec

P = ParamSpec("P")
Answer = TypeVar("Answer")

_LARGE = 2000  # values in its JSON: some milliseconds
_OF_A_WORKFLOW = ("name", "timeout")
_OF_A_JOB = OPTION_NAMES | {"task", "args", "kwargs", "immutable"}


class FlowDraft(Struct, frozen=True, kw_only=True):
    """A workflow that is not accepted yet; `spec` is the form that it was read from."""

    flow: Flow
    spec: Any

    @property
    def workflow(self) -> Workflow:
        return self.flow.workflow


async def draft_flow(value: Any, catalogue: Catalogue, default_queue: str, *, force: bool) -> FlowDraft:
    """`value` is JSON. Raises InvalidSubmission with every wrong place; nothing is written yet."""
    run = asyncio.to_thread if _is_large(value) else _at_once
    spec, compiled = await run(_compiled, value)
    tasks = await catalogue.having(task_names(compiled))
    await run(check, compiled, tasks, force=force)
    return FlowDraft(flow=await run(_flow, spec, compiled, tasks, default_queue), spec=value)


async def _at_once(work: Callable[P, Answer], /, *args: P.args, **kwargs: P.kwargs) -> Answer:
    return work(*args, **kwargs)


def _is_large(value: Any) -> bool:
    """Whether reading it would keep all others of this loop waiting."""
    seen, below = 0, [value]
    while below and seen < _LARGE:
        part = below.pop()
        seen += 1
        if isinstance(part, dict):
            below.extend(part.values())
        elif isinstance(part, list):
            below.extend(part)
    return bool(below)


def _compiled(value: Any) -> tuple[Spec, Compiled]:
    spec = read_spec(value)
    compiled = compile_spec(spec)
    if len(compiled.steps) > MAX_NODES:
        message = f"a workflow has at most {MAX_NODES:,} nodes, and this one {len(compiled.steps):,}; make it several"
        raise InvalidSubmission([FieldError(("workflow",), message)])
    return spec, compiled


def _flow(spec: Spec, compiled: Compiled, tasks: Mapping[str, Task], default_queue: str) -> Flow:
    now = round(time.time(), 6)
    workflow = Workflow(
        id=str(uuid7()),
        name=spec.name,
        output=compiled.output,
        queue=default_queue,
        timeout=spec.timeout,
        deadline=None if spec.timeout is None else round(now + spec.timeout, 6),
        created_at=now,
        changed_at=now,
    )

    def queue_of(task: str) -> str:
        return (tasks[task].queue if task in tasks else None) or default_queue

    nodes, edges, _ = rows_of(compiled.steps, workflow.id, now, queue_of=queue_of)
    return Flow(workflow=workflow, nodes=tuple(nodes), edges=tuple(edges))


def is_flow(thing: Any) -> bool:
    """Whether it is a signature of Celery's, or a builder: anything that is no task."""
    return is_signature(thing) or hasattr(type(thing), "__json__")


def is_signature(thing: Any) -> bool:
    return isinstance(thing, Mapping) and "subtask_type" in thing


def read(thing: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Submission | dict[str, Any]:
    """The form of a workflow; or the one job that it is, if it is no more than that and has no option of a workflow.

    Raises TypeError for options that it does not take, and InvalidSubmission for what a signature has and Dure lacks.
    """
    if args:
        raise TypeError("a signature and a workflow hold their arguments; only options stand beside them, by name")
    form: dict[str, Any] = spec_of(thing) if is_signature(thing) else thing.__json__()["$workflow"]
    whole = {name: options[name] for name in _OF_A_WORKFLOW if options.get(name) is not None}
    others = {name: value for name, value in options.items() if name not in _OF_A_WORKFLOW}
    is_job = not whole and "task" in form and form.keys() <= _OF_A_JOB
    if wrong := others.keys() - (OPTION_NAMES if is_job else ()):
        what, known = ("job", OPTION_NAMES) if is_job else ("workflow", _OF_A_WORKFLOW)
        raise TypeError(f"{', '.join(sorted(wrong))}: no option of a {what}, which has {', '.join(sorted(known))}")
    if not is_job:
        return form | whole
    return Submission(
        task=form["task"],
        args=form.get("args", ()),
        kwargs=form.get("kwargs", {}),
        options={name: form[name] for name in form.keys() & OPTION_NAMES} | others,
        force=True,
    )
