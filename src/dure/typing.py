"""How Celery's tasks and signatures look to a type checker."""

from __future__ import annotations

from typing import Any, ParamSpec, Protocol, TypedDict, TypeVar

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class TaskOf(Protocol[P, R_co]):
    """A callable with a name."""

    @property
    def name(self) -> str: ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class SignatureOf(Protocol):
    """A task with arguments for it: `add.s(1, 2)`; and what Celery makes of several."""

    @property
    def subtask_type(self) -> Any: ...

    @property
    def immutable(self) -> Any: ...

    def keys(self) -> Any: ...

    def link_error(self, errback: Any, /) -> Any: ...


class CanvasOf(SignatureOf, Protocol):
    """A chain, a group or a chord: a signature that has others in it."""

    @property
    def tasks(self) -> Any: ...


class FlowOptions(TypedDict, total=False):
    name: str | None
    timeout: float | None
    idempotency_key: str | None
    force: bool
