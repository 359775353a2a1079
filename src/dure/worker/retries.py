"""Retries that the caller asked for with the `dure_retries` header, made as Celery makes its own.

Celery keeps a message with a countdown in the worker's memory until it is due. It takes one of the few messages
that RabbitMQ gives a consumer of a quorum queue at a time, and Celery can't raise that number there: as many
waiting retries as there are slots, and the worker stands still. So on RabbitMQ a retry waits in the broker, in a
queue of its length of pause, from which it is dead-lettered back:

    retry ──▶ dure.retry.4s.<queue>   no consumer; after at most 4 s ──▶ <queue>

There are seven such queues for a queue at most; unused, they go after a while.
"""

from __future__ import annotations

import random
from typing import Any

from amqp.exceptions import ChannelError
from celery import Task
from celery.exceptions import Reject, Retry
from kombu import Exchange, Queue

from dure.wire import RETRIES_HEADER

_LONGEST = 60
_UNUSED = 600_000


def again(task: Task[..., Any], exc: Exception, queue_type: str) -> Exception | None:
    """Send the job again and return Celery's Retry to raise; None when no retry is left."""
    request = task.request
    limit = request.get(RETRIES_HEADER)
    if not isinstance(limit, int) or request.retries >= limit:
        return None
    longest = backoff(request.retries)
    # Less by up to a half: jobs that failed together shall not come back together.
    pause = random.uniform(longest / 2, longest)  # noqa: S311
    try:
        signature = _send(task, longest, pause, queue_type)
    except Exception as lost:
        # The message stays the job's only one: back to its queue with it.
        return Reject(lost, requeue=True)
    when: Any = pause
    return Retry(exc=exc, when=when, sig=signature)


def backoff(retries: int) -> int:
    """The longest pause before the next attempt, in seconds: 1, 2, 4, … 60."""
    return min(_LONGEST, int(2 ** min(retries, 10)))


def _send(task: Any, longest: int, pause: float, queue_type: str) -> Any:
    # Not `task.retry`: it keeps `max_retries` on the task, which other threads read.
    retries = task.request.retries + 1
    if task.app.connection_for_write().transport.driver_type == "amqp":
        waiting = _waiting_room(task.request.delivery_info or {}, longest, queue_type)
        signature = task.signature_from_request(queue=waiting, retries=retries)
        try:
            signature.apply_async(expiration=pause)
            return signature
        except ChannelError:  # no permission for such a queue: better slots taken than no retry
            pass
    signature = task.signature_from_request(countdown=pause, retries=retries)
    signature.apply_async()
    return signature


def _waiting_room(came_by: dict[str, Any], longest: int, queue_type: str) -> Queue:
    exchange, key = came_by.get("exchange") or "", came_by.get("routing_key") or ""
    name = f"dure.retry.{longest}s.{f'{exchange}.' if exchange else ''}{key}"
    arguments: dict[str, Any] = {
        "x-message-ttl": longest * 1000,
        "x-expires": longest * 1000 + _UNUSED,
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-routing-key": key,
    }
    if queue_type == "quorum":
        arguments |= {
            "x-queue-type": "quorum",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
    return Queue(name, Exchange(""), name, queue_arguments=arguments)
