"""The answers that the documentation shows, held against the real ones."""

import json
import re
from itertools import zip_longest
from typing import Any

CUT = "…"

# What differs from one run to the next, whatever its value.
_CHANGES = {
    "id", "job", "detail", "created_at", "queued_at", "received_at", "started_at", "finished_at", "changed_at",
    "heartbeat_at", "announced_at", "eta", "expires", "worker", "hostname", "announced_by", "pid", "processed",
    "concurrency", "runtime", "traceback", "fingerprint", "next", "root_id", "messages", "retry_of", "first_at",
    "last_at", "cancel_requested_at",
}  # fmt: skip
_HEADERS_THAT_CHANGE = {"location", "date", "content-length"}

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NORMAL = (
    (_ID, "ID"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "FINGERPRINT"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d|Z)"), "TIME"),
    (re.compile(r"celery@\S+"), "WORKER"),
    (re.compile(r"\+?\d+(\.\d+)? (ms|s|min|h)\b( \d+ (s|min))?( ago)?(?! ?;)"), "SPAN"),
    (re.compile(r"× \d+"), "× N"),
    (re.compile(r":\d{4,5}\b"), ":PORT"),
    (re.compile(r"─+"), "─"),
    (re.compile(r"\s+"), " "),
)


def differences(shown: Any, real: Any, place: str = "") -> list[str]:
    """Where a shown JSON value is not what it was said to be; a key `…` stands for any further fields."""
    match shown, real:
        case {**ours}, {**theirs}:
            missing = [f"{place}.{key} is not there" for key in ours.keys() - theirs.keys() - {CUT}]
            further = [] if CUT in ours else [f"{place}.{key} is not shown" for key in theirs.keys() - ours.keys()]
            kept = [key for key in ours.keys() & theirs.keys() if key not in _CHANGES]
            return [
                *missing,
                *further,
                *(line for key in kept for line in differences(ours[key], theirs[key], f"{place}.{key}")),
            ]
        case [*ours], [*theirs]:
            pairs = enumerate(zip_longest(ours, theirs))
            return [line for i, (a, b) in pairs for line in differences(a, b, f"{place}[{i}]")]
    if isinstance(shown, str) and isinstance(real, str):
        shown, real = _ID.sub("ID", shown), _ID.sub("ID", real)
    return [] if shown == real else [f"{place} is {real!r}, not {shown!r}"]


def json_differences(shown: str, output: str) -> list[str]:
    return differences(json.loads(shown), json.loads(output.strip().splitlines()[-1]))


def http_differences(shown: str, output: str) -> list[str]:
    """The status line, the headers that are shown, and the body."""
    (status, headers, body), (real_status, real_headers, real_body) = _parts(shown), _parts(output)
    wrong = [] if status == real_status else [f"{real_status!r}, not {status!r}"]
    wrong += [
        f"{name}: {real_headers.get(name)!r}, not {value!r}"
        for name, value in headers.items()
        if name not in real_headers or (name not in _HEADERS_THAT_CHANGE and real_headers[name] != value)
    ]
    return wrong + json_differences(" ".join(body.split("\n")), real_body)


def _parts(text: str) -> tuple[str, dict[str, str], str]:
    head, _, body = text.replace("\r", "").lstrip().partition("\n\n")
    status, *lines = head.splitlines()
    return status, {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


def text_differences(shown: str, output: str, folder: str) -> list[str]:
    """Line by line, without what differs from run to run; a line `…` stands for any number of lines."""
    wanted = _lines(shown)
    real = _lines(output.replace(folder, "/srv/shop"))
    pattern = "".join(r"(?:[^\n]*\n)*?" if line == CUT else f"{re.escape(line)}\n" for line in wanted)
    if re.fullmatch(pattern, "".join(f"{line}\n" for line in real)):
        return []
    return [f"shown: {a!r}, real: {b!r}" for a, b in zip_longest(wanted, real) if a != b]


def _lines(text: str) -> list[str]:
    lines = []
    for line in text.rstrip().splitlines():
        normal = line
        for pattern, name in _NORMAL:
            normal = pattern.sub(name, normal)
        lines.append(normal.strip())
    return lines
