"""A task as its worker announced it, and how a call's arguments are held against it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Task(Struct, frozen=True, kw_only=True):
    """A task that workers can run.

    `arguments` is the JSON schema (draft 2020-12) of an object with one property for each parameter, None where it
    is not known (a stock worker tells names only); `positional` are the parameters that a position can fill, in
    order, and `variadic` says that more positions are taken (`*args`).
    """

    name: str
    doc: str | None = None
    arguments: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    positional: tuple[str, ...] = ()
    variadic: bool = False
    queue: str | None = None
    announced_at: float = 0.0
    announced_by: str | None = None
