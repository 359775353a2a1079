"""A worker's health, where it is told and how it is asked for: a file that is written anew each second, or a port."""

from __future__ import annotations

import json
import re
import time
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:\[\]]*):(?P<port>[0-9]{1,5})")
_STALE = 10.0  # seconds after which nobody writes the file any more
_PATIENCE = 5.0


@dataclass(frozen=True)
class File:
    path: str  # `%h` and the like stand for parts of the worker's name, as in Celery's `--pidfile`


@dataclass(frozen=True)
class Port:
    host: str  # empty for every address
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Answer:
    is_ready: bool
    health: dict[str, Any]
    why_not: str = ""


def parse(text: str) -> File | Port:
    """Raises ValueError for what is neither."""
    if text.isdecimal():
        raise ValueError(f"write :{text} to listen on every address, or 127.0.0.1:{text}")
    found = _PORT.fullmatch(text)
    if found is None:
        return File(text)
    if not 0 < (port := int(found["port"])) < 65_536:
        raise ValueError(f"{port} is no port")
    return Port(found["host"].strip("[]"), port)


def numbered(text: str, number: int) -> str:
    """The place of the `number`th of several workers: a port each, upwards. Raises ValueError for a file they share."""
    place = parse(text)
    if isinstance(place, Port):
        return str(parse(str(Port(place.host, place.port + number - 1))))
    if "%h" not in text:
        raise ValueError(f"the processes would share the file {text}; write %h into its name: {text}.%h")
    return text


def ask(place: File | Port) -> Answer:
    """Whether the worker takes jobs, and what else it says of itself. A worker that says nothing is not ready."""
    try:
        health = _read(Path(place.path)) if isinstance(place, File) else _get(place)
    except (OSError, HTTPException, ValueError) as exc:
        return Answer(False, {}, f"nothing was told: {exc}")
    if health.get("alive") is not True:
        return Answer(False, health, "its loop stands still")
    if health.get("consuming") is not True:
        return Answer(False, health, f"it is {health.get('state')}")
    return Answer(True, health)


def _read(path: Path) -> dict[str, Any]:
    age = time.time() - path.stat().st_mtime
    if age > _STALE:
        raise ValueError(f"{path} was last written {age:.0f} seconds ago")
    return _object(path.read_bytes())


def _get(place: Port) -> dict[str, Any]:
    with closing(HTTPConnection(place.host or "127.0.0.1", place.port, timeout=_PATIENCE)) as connection:
        connection.request("GET", "/ready")
        return _object(connection.getresponse().read())


def _object(text: bytes) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("that is no worker's health")  # noqa: TRY004  one kind of error for one kind of answer
    return value
