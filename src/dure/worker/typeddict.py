"""Python's own TypedDict, as pydantic can read it: before Python 3.12 it wants that of typing_extensions."""

from __future__ import annotations

import sys
import types
import typing
from typing import Annotated, Any, Literal, NotRequired, Required, Union

import typing_extensions


def readable(hint: Any) -> Any:
    """The same hint, with every `typing.TypedDict` in it replaced by an equal one that pydantic reads."""
    if sys.version_info >= (3, 12):
        return hint
    if typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        return _replaced(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None or origin is Literal:
        return hint
    if origin is Annotated:
        return Annotated[(readable(arguments[0]), *arguments[1:])]
    read = tuple(readable(argument) for argument in arguments)
    if read == arguments:
        return hint
    return Union[read] if origin in (Union, types.UnionType) else origin[read]  # noqa: UP007


def _replaced(hint: Any) -> Any:
    fields = {
        name: Required[readable(kind)] if name in hint.__required_keys__ else NotRequired[readable(kind)]
        for name, kind in typing.get_type_hints(hint).items()
    }
    make: Any = typing_extensions.TypedDict
    return make(hint.__name__, fields)
