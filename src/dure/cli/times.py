"""Moments and durations: as people write them, and as they read them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import typer

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[smhdw]?)")


def duration(text: str) -> float:
    """Seconds of `90`, `1.5`, `10m`, `2h`, `1d`."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a duration such as 90, 10m, 2h or 1d")
    return float(found["number"]) * _UNITS[found["unit"]]


def moment(text: str) -> datetime:
    """A moment in ISO 8601; without an offset it is local time."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a moment such as 2026-01-31T09:00") from None


def past(text: str) -> float:
    """Seconds since the epoch of a moment, or of so long ago: `10m`."""
    if _DURATION.fullmatch(text.strip()):
        return time.time() - duration(text)
    return moment(text).timestamp()


def deadline(text: str) -> float | datetime:
    """A duration from now, or a moment."""
    return duration(text) if _DURATION.fullmatch(text.strip()) else moment(text)


def span(seconds: float) -> str:
    """`12 ms`, `3.2 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return _two(seconds, 60, "min", 1, "s")
    if seconds < 86_400:
        return _two(seconds, 3600, "h", 60, "min")
    return _two(seconds, 86_400, "d", 3600, "h")


def ago(at: float | None, now: float) -> str:
    if at is None:
        return "–"
    return f"{_coarse(now - at)} ago" if at <= now else f"in {_coarse(at - now)}"


def clock(at: float) -> str:
    """Local time with its offset, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat(" ", "milliseconds")


def _coarse(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else " ".join(span(seconds).split()[:2])


def _two(seconds: float, unit: int, name: str, below: int, part: str) -> str:
    whole, rest = divmod(int(seconds), unit)
    return f"{whole} {name} {rest // below} {part}" if rest // below else f"{whole} {name}"
