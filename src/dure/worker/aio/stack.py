"""Celery's task and request stacks, one for each context instead of one for each thread.

Celery's `LocalStack` belongs to a thread or greenlet, and many coroutines share one. A context variable belongs to a
coroutine, is inherited by what it starts (`asyncio.create_task`, `asyncio.to_thread`), and in threads without a loop
is as good as a thread's own.

The stack is a tuple: two children of one coroutine that push do not see one another.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from celery import _state
from celery.utils.threads import _LocalStack

_EMPTY: tuple[Any, ...] = ()


class ContextStack(_LocalStack[Any]):
    """Takes the place of a stack that others hold already: `of` changes its class."""

    _items: ContextVar[tuple[Any, ...]]

    @classmethod
    def of(cls, stack: Any) -> None:
        if not isinstance(stack, cls):
            stack._items = ContextVar("stack", default=_EMPTY)
            stack.__class__ = cls

    def push(self, obj: Any) -> list[Any]:
        items = (*self._items.get(), obj)
        self._items.set(items)
        return list(items)

    def pop(self) -> Any:
        items = self._items.get()
        if not items:
            return None
        self._items.set(items[:-1])
        return items[-1]

    def __release_local__(self) -> None:
        self._items.set(_EMPTY)

    def __len__(self) -> int:
        return len(self._items.get())

    @property
    def stack(self) -> list[Any]:
        return list(self._items.get())

    @property
    def top(self) -> Any:
        items = self._items.get()
        return items[-1] if items else None


def install(task: Any) -> None:
    """Give a task's request stack, and the process's stack of tasks, to contexts; before its tracer is built."""
    for stack in (_state._task_stack, task.request_stack):  # type: ignore[attr-defined]
        if stack is not None:
            ContextStack.of(stack)
