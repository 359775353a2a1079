"""Workflows written in Python, checked by a type checker.

    dag = DAG("report")
    rows = dag.add(load, "2026-01")
    sums = dag.map(total, rows.result["items"])
    dag.add(mail, sums.result, to="ops@example.com").set(queue="mail")

`node.result` has the type of what the task returns, so that it can stand wherever a value of that type can; what it is
until then is a reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, cast, overload

from dure.typing import SignatureOf, TaskOf
from dure.workflow import ERROR, ITEM, LITERAL, RESULT
from dure.workflows.canvas import spec_of
from dure.workflows.spec import is_signature
from dure.workflows.templates import SPECIAL, reference

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Reference:
    """Stands for a value that is known later; `[…]` and attributes are parts of it."""

    __slots__ = ("_kind", "_node", "_path")

    def __init__(self, kind: str, node: Node[Any] | None, path: tuple[str | int, ...] = ()) -> None:
        self._kind = kind
        self._node = node
        self._path = path

    def __getitem__(self, part: str | int) -> Reference:
        return Reference(self._kind, self._node, (*self._path, part))

    def __getattr__(self, part: str) -> Reference:
        if part.startswith("_"):
            raise AttributeError(part)
        return self[part]

    def __iter__(self) -> Any:
        raise TypeError("what a node returns is not known yet; map() goes over it when it is")

    def __bool__(self) -> bool:
        raise TypeError("what a node returns is not known yet")

    def __json__(self) -> Any:
        return reference(self._kind, True if self._node is None else self._node.name, self._path)

    def __repr__(self) -> str:
        return f"<Reference {self.__json__()}>"


class Node(Generic[R_co]):
    """A node of a DAG; `name` is unique in it."""

    def __init__(self, dag: DAG, name: str, form: dict[str, Any]) -> None:
        self._dag = dag
        self.name = name
        self._form = form

    @property
    def result(self) -> R_co:
        """What it returns, as an argument for others."""
        return cast(R_co, Reference(RESULT, self))

    @property
    def error(self) -> Any:
        """How it failed, as an argument for one that is run then: `["message"]`, `["type"]`, `["id"]` and others."""
        return Reference(ERROR, self)

    def set(
        self,
        *,
        name: str | None = None,
        needs: Iterable[Node[Any]] | Mapping[Node[Any], Literal["success", "end", "failure"]] | None = None,
        on_failure: Literal["fail", "continue"] | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: float | None = None,
        eta: datetime | None = None,
        expires: datetime | float | None = None,
        retries: int | None = None,
        time_limit: float | None = None,
        tags: Sequence[str] | None = None,
    ) -> Node[R_co]:
        """Options as of a job, and what it waits for beside what its arguments refer to. Gives the node back."""
        if name is not None:
            self._dag._rename(self, name)
        options = {
            "needs": None if needs is None else dict(needs) if isinstance(needs, Mapping) else list(needs),
            "on_failure": on_failure,
            "queue": queue,
            "priority": priority,
            "delay": delay,
            "eta": eta,
            "expires": expires,
            "retries": retries,
            "time_limit": time_limit,
            "tags": None if tags is None else list(tags),
        }
        for option, value in options.items():
            if value is not None:
                # A map's task has its options beside it; what the map waits for is the map's own.
                each = self._form.get("map", {})
                (each if option != "needs" and "task" in each else self._form)[option] = value
        return self

    @overload
    def on_failure(self, task: TaskOf[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Node[R]: ...
    @overload
    def on_failure(self, task: str, /, *args: Any, **kwargs: Any) -> Node[Any]: ...
    def on_failure(self, task: Any, /, *args: Any, **kwargs: Any) -> Node[Any]:
        """A node that is run if this one fails; it may be told `error` of this one."""
        return self._dag.add(task, *args, **kwargs).set(needs={self: "failure"})

    def __repr__(self) -> str:
        return f"<Node {self.name}>"


class DAG:
    """A workflow of nodes that refer to one another; `timeout` is in seconds, for the whole."""

    def __init__(self, name: str | None = None, timeout: float | None = None) -> None:
        self.name = name
        self.timeout = timeout
        self._nodes: dict[str, Node[Any]] = {}
        self._inside: dict[str, Node[Any]] = {}
        self._returns: list[Any] = []

    @property
    def item(self) -> Any:
        """In what is given to `map`, the item, where it is not to be the first argument."""
        return Reference(ITEM, None)

    @overload
    def add(self, task: TaskOf[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Node[R]: ...
    @overload
    def add(self, task: str, /, *args: Any, **kwargs: Any) -> Node[Any]: ...
    def add(self, task: Any, /, *args: Any, **kwargs: Any) -> Node[Any]:
        """One job. Arguments may be references, or hold them."""
        return self._new(_short(task), _step(task, args, kwargs))

    @overload
    def map(
        self, task: TaskOf[Concatenate[T, P], R], over: Iterable[T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Node[list[R]]: ...
    @overload
    def map(
        self, task: str | SignatureOf | DAG | Mapping[str, Any], over: Any, /, *args: Any, **kwargs: Any
    ) -> Node[list[Any]]: ...
    def map(self, task: Any, over: Any, /, *args: Any, **kwargs: Any) -> Node[list[Any]]:
        """The task for each item, which becomes its first argument unless `item` is among the others; or a DAG, a
        signature or a form for each. The result is the list of theirs, in order."""
        if isinstance(task, DAG | Mapping):
            if args or kwargs:
                raise TypeError("a workflow holds its arguments; only what it goes over stands beside it")
            inner = task.spec() if isinstance(task, DAG) else self._form_of(task)
            return self._new("map", {"map": {"over": _data(over), "do": inner}})
        return self._new(_short(task), {"map": {"over": _data(over), **_step(task, args, kwargs)}})

    def wait(self, name: str | None = None, *, timeout: float | None = None) -> Node[Any]:
        """Ends when it is signalled, with what the signal brought; fails after `timeout` seconds."""
        node: Node[Any] = self._new("wait", {"wait": {} if timeout is None else {"timeout": timeout}})
        return node if name is None else node.set(name=name)

    def chain(self, *steps: SignatureOf | Mapping[str, Any] | Node[Any]) -> Node[Any]:
        """One after the other; each gets the result of the one before as its first argument. A node that is given here
        stands in the chain from then on."""
        return self._new("chain", {"chain": [self._form_of(step) for step in steps]})

    def group(self, *members: SignatureOf | Mapping[str, Any] | Node[Any]) -> Node[list[Any]]:
        """Side by side; the result is the list of theirs."""
        return self._new("group", {"group": [self._form_of(member) for member in members]})

    def chord(
        self,
        header: Iterable[SignatureOf | Mapping[str, Any] | Node[Any]],
        body: SignatureOf | Mapping[str, Any] | Node[Any],
    ) -> Node[Any]:
        """A group, and what gets the list of its results."""
        members = [self._form_of(member) for member in header]
        return self._new("chord", {"chord": {"header": members, "body": self._form_of(body)}})

    def returns(self, result: Any) -> DAG:
        """What the whole returns: a value that holds references. Else it is what each node returned that no other
        needs, by its name."""
        self._returns = [_data(result)]
        return self

    def spec(self) -> dict[str, Any]:
        """The workflow as it is submitted."""
        nodes = {name: _plain(node._form) for name, node in self._nodes.items()}
        whole = {"name": self.name, "timeout": self.timeout}
        result = {"result": _plain(self._returns[0])} if self._returns else {}
        return {"nodes": nodes} | result | {key: value for key, value in whole.items() if value is not None}

    def __json__(self) -> dict[str, Any]:
        """A task that returns this is replaced by it."""
        return {"$workflow": self.spec()}

    def _new(self, wish: str, form: dict[str, Any]) -> Node[Any]:
        taken = self._nodes.keys() | self._inside.keys()
        number = 1
        name = wish
        while name in taken:
            number += 1
            name = f"{wish}-{number}"
        node: Node[Any] = Node(self, name, form)
        self._nodes[name] = node
        return node

    def _rename(self, node: Node[Any], name: str) -> None:
        if name == node.name:
            return
        if name in self._nodes or name in self._inside:
            raise ValueError(f"there is a node named {name!r} already")
        for nodes in (self._nodes, self._inside):
            if nodes.get(node.name) is node:
                # In the place where it stood, for that is the order in which nodes are shown.
                renamed = {name if old == node.name else old: kept for old, kept in nodes.items()}
                nodes.clear()
                nodes.update(renamed)
        node.name = name

    def _form_of(self, part: Any) -> Any:
        if not isinstance(part, Node):
            return spec_of(part) if is_signature(part) else part
        if self._nodes.get(part.name) is not part:
            raise ValueError(f"{part.name!r} is no node of this DAG that could be moved; it is in another already")
        self._inside[part.name] = self._nodes.pop(part.name)
        return _Moved(part)


class _Moved:
    """A node that stands in a chain, group or chord: its form has its name."""

    def __init__(self, node: Node[Any]) -> None:
        self.node = node


def _step(task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    form: dict[str, Any] = {"task": task if isinstance(task, str) else task.name}
    return form | ({"args": _data(args)} if args else {}) | ({"kwargs": _data(kwargs)} if kwargs else {})


def _short(task: Any) -> str:
    """The last part of a task's name, as a node can be called."""
    name = str(task if isinstance(task, str) else task.name).rpartition(".")[2]
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:90] or "node"


def _plain(form: Any) -> Any:
    """A form without objects of ours."""
    if isinstance(form, Reference):
        return form.__json__()
    if isinstance(form, _Moved):
        return _plain(form.node._form) | {"name": form.node.name}
    if isinstance(form, Node):
        return form.name
    if isinstance(form, Mapping):
        return {_plain(key): _plain(value) for key, value in form.items()}
    if isinstance(form, list | tuple):
        return [_plain(value) for value in form]
    return form


def _data(value: Any) -> Any:
    """What looks like a reference in it, and is none, is quoted."""
    if isinstance(value, Mapping):
        kept = {key: _data(inner) for key, inner in value.items()}
        return kept if value.keys().isdisjoint(SPECIAL) else {LITERAL: value}
    if isinstance(value, list | tuple):
        return [_data(inner) for inner in value]
    return value
