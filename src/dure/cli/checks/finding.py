"""One thing that `dure check` found."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from dure.errors import Problem


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(Struct, frozen=True, kw_only=True):
    """`remedy` is there for a warning and a problem."""

    level: Level
    place: str
    message: str
    remedy: str | None = None


def ok(place: str, message: str) -> Finding:
    return Finding(level=Level.OK, place=place, message=message)


def warning(place: str, message: str, remedy: str) -> Finding:
    return Finding(level=Level.WARNING, place=place, message=message, remedy=remedy)


def problem(place: str, message: str, remedy: str) -> Finding:
    return Finding(level=Level.PROBLEM, place=place, message=message, remedy=remedy)


def problem_of(found: Problem, prefix: Literal["", "app "] = "") -> Finding:
    return problem(prefix + found.place, found.message, found.remedy)
