"""RabbitMQ takes a message back from a consumer that holds it too long, 30 minutes unless it is told otherwise.

Celery acknowledges a job at its end, so a long job's channel is closed and its message delivered again, again and
again while it runs. The worker then takes the new delivery over (see `memory`), but another worker would run the job a
second time. From 3.12 on a queue can say for how long its messages may be held, and the queues that Dure makes do. For
older servers, and for queues of the application, only the server's operator can; so the worker says it at its start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kombu import Connection

from dure.worker import log

_ARGUMENT = "x-consumer-timeout"
_HEEDED_FROM = (3, 12)


def warn(connection: Connection, queues: Iterable[Any]) -> None:
    """Name the queues whose long jobs the server would deliver again."""
    version = server_version(getattr(connection.connection, "server_properties", None) or {})
    if version is not None and (short := at_risk(version, queues)):
        log.consumer_timeout(".".join(map(str, version)), short)


def at_risk(version: tuple[int, ...], queues: Iterable[Any]) -> list[str]:
    """The queues that have no timeout of their own which this server heeds."""
    heeded = version >= _HEEDED_FROM
    return sorted(queue.name for queue in queues if not (heeded and _ARGUMENT in (queue.queue_arguments or {})))


def server_version(properties: dict[str, Any]) -> tuple[int, ...] | None:
    """None where it is not RabbitMQ, or an unheard-of version."""
    if properties.get("product") != "RabbitMQ":
        return None
    numbers = str(properties.get("version")).partition("-")[0].partition("+")[0].split(".")
    return tuple(map(int, numbers)) if all(number.isdigit() for number in numbers) else None
