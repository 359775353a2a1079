"""A ledger in miniature: runs compiled steps one after another, with the rules of edges, in one process."""

from collections.abc import Callable, Mapping
from typing import Any

from dure.job import JobError, Reason, State
from dure.workflow import Kind, On, Outcome, resolve
from dure.workflows.compile import Compiled, Step, expand

Run = Callable[[str, list[Any], dict[str, Any]], Any]


class Interpreter:
    """`run` is what a task does: it is called with a task's name and its arguments, returns its result or raises."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.ends: dict[str, Outcome] = {}

    def result(self, compiled: Compiled) -> Any:
        self._all(compiled)
        return resolve(compiled.output, self.ends)

    def _all(self, compiled: Compiled) -> None:
        open_steps = list(compiled.steps)
        while open_steps:
            ready = [step for step in open_steps if step.needs.keys() <= self.ends.keys()]
            assert ready, f"these never begin: {[step.name for step in open_steps]}"
            for step in ready:
                self.ends[step.name] = self._end(step)
            open_steps = [step for step in open_steps if step.name not in self.ends]

    def _end(self, step: Step) -> Outcome:
        for name, on in step.needs.items():
            if (hindered := _hindered(on, self.ends[name])) is not None:
                return _outcome(step, *hindered)
        needs = {name: self.ends[name] for name in step.needs}  # a reference to anything else is an error
        args, kwargs = resolve(step.args, needs), resolve(step.kwargs, needs)
        try:
            value = self._value(step, args, kwargs)
        except Exception as exc:
            return _outcome(step, State.FAILURE, Reason.ERROR, error=str(exc))
        return _outcome(step, State.SUCCESS, None, value)

    def _value(self, step: Step, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if step.kind is Kind.VALUE:
            return args[0]
        if step.kind is Kind.WAIT:
            return f"signal of {step.name}"
        if step.kind is Kind.MAP:
            return self.result(expand(step.body, args[0], step.name))
        assert step.task is not None
        return self._run(step.task, args, kwargs)


def _hindered(on: On, need: Outcome) -> tuple[State, Reason] | None:
    if on is On.END:
        return None
    if need.reason == Reason.SKIPPED:
        return State.REVOKED, Reason.SKIPPED
    if on is On.SUCCESS:
        return None if need.state is State.SUCCESS else (State.FAILURE, Reason.UPSTREAM_FAILED)
    failed = need.state is State.FAILURE and (on is On.FAILURE or need.reason != Reason.UPSTREAM_FAILED)
    return None if failed else (State.REVOKED, Reason.SKIPPED)


def _outcome(step: Step, state: State, reason: str | None, result: Any = None, error: str = "") -> Outcome:
    told = JobError(type="Error", message=error) if state is State.FAILURE else None
    return Outcome(job_id=f"id of {step.name}", state=state, reason=reason, result=result, error=told, task=step.task)


def ends_of(compiled: Compiled, run: Run) -> Mapping[str, Outcome]:
    interpreter = Interpreter(run)
    interpreter.result(compiled)
    return interpreter.ends
