"""Load from wrk, which is a program of its own in C: the load generator is not what is measured."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass

_SCRIPT = """
wrk.method = "POST"
wrk.body = '{"args": [2, 3]}'
wrk.headers["Content-Type"] = "application/json"
"""
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True, slots=True)
class Load:
    """Requests a second, latencies in milliseconds, and how many answers were no 2xx."""

    rate: float
    p50: float
    p99: float
    requests: int
    refused: int


def post(url: str, *, seconds: int, connections: int) -> Load:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT)
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout=30s", "-s", script.name]
        told = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    return Load(
        rate=float(_find(r"Requests/sec:\s+([\d.]+)", told)),
        p50=_milliseconds(_find(r"(?m)^\s+50%\s+(\S+)", told)),
        p99=_milliseconds(_find(r"(?m)^\s+99%\s+(\S+)", told)),
        requests=int(_find(r"(\d+) requests in", told)),
        refused=int(_find(r"Non-2xx or 3xx responses: (\d+)", told, "0")),
    )


def _find(pattern: str, text: str, default: str | None = None) -> str:
    found = re.search(pattern, text)
    if found is None:
        if default is None:
            raise RuntimeError(f"wrk did not tell {pattern!r}:\n{text}")
        return default
    return found[1]


def _milliseconds(told: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", told).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]
