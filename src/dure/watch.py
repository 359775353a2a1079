"""Under which routing keys what a job tells can be watched.

A message on Celery's event exchange carries them in its header `BCC`, RabbitMQ's sender-selected distribution: each
queue that is bound to one of them gets one copy, without the header. So who watches a job is given the messages that
speak of it, and no others. A message speaks of several jobs, though: what a reader does not watch it passes over.

A job's and a workflow's key are one word for a topic exchange, as long as the id is: a broker takes its time for each
word of each key of each message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

ANY_TASK = "dure.task.#"

_LONGEST = 255  # bytes; what AMQP can bind
_HEADER_BYTES = 49_152  # a header must fit into one frame, and brokers may be set to frames of 64 KiB
_HEADER_KEYS = 1000


def job_key(job_id: str) -> str:
    return _bindable(f"dure-job-{job_id}")


def task_key(task: str) -> str:
    return _bindable(f"dure.task.{task}")


def root_key(root_id: str) -> str:
    return _bindable(f"dure-root-{root_id}")


def watch_keys(job_id: str, task: str | None = None, root_id: str | None = None) -> list[str]:
    """Where a job can be watched: by its id, its task's name, and the workflow it is of."""
    keys = [job_key(job_id)]
    if task:
        keys.append(task_key(task))
    if root_id and root_id != job_id:
        keys.append(root_key(root_id))
    return keys


def in_messages(parts: Iterable[tuple[bytes, Sequence[str]]]) -> Iterator[tuple[list[bytes], list[str]]]:
    """Parts, each with its keys, by the messages that they can share: the keys of one, each once, fit its header."""
    bodies: list[bytes] = []
    keys: dict[str, None] = {}
    size = 0
    for body, its_keys in parts:
        new = [key for key in its_keys if key not in keys]
        grown = size + sum(map(_weight, new))
        if bodies and (grown > _HEADER_BYTES or len(keys) + len(new) > _HEADER_KEYS):
            yield bodies, list(keys)
            bodies, keys, new = [], {}, list(its_keys)
            grown = sum(map(_weight, new))
        bodies.append(body)
        keys |= dict.fromkeys(new)
        size = grown
    if bodies:
        yield bodies, list(keys)


def _weight(key: str) -> int:
    return len(key.encode()) + 5  # its type and length stand before it


def _bindable(key: str) -> str:
    if len(key) <= _LONGEST // 4 or len(encoded := key.encode("utf-8", "surrogatepass")) <= _LONGEST:
        return key
    return encoded[: _LONGEST - 65].decode("utf-8", "ignore") + "." + hashlib.sha256(encoded).hexdigest()
