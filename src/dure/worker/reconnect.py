"""How a worker leaves a broker that is lost, and how often it looks for it.

Celery takes leave of a broker politely, and where the line was cut without a word nobody answers. Its pauses grow to
half a minute, in which a broker that is back is left alone.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_PAUSES = {"interval_start": 0.0, "interval_step": 0.5, "interval_max": 2.0}
_TRIES_FOR_ONE = 15  # so that it gives up no sooner than Celery would
_MARK = "__dure_often__"


def look_often(connection: Any) -> None:
    """Once for a connection, however often it is called."""
    if not hasattr(connection.ensure_connection, _MARK):
        connection.ensure_connection = _often(connection.ensure_connection)


def sever(connection: Any, hub: Any = None) -> None:
    """End its socket, if it has one: whoever waits in it for an answer gets an error. `hub` is who reads from it."""
    with suppress(Exception):  # it may be closed, or another transport's
        ended = connection.connection.transport.sock
        if hub is not None:
            hub.remove(ended)
        ended.shutdown(socket.SHUT_RDWR)


def _often(ensure: Callable[..., Any]) -> Callable[..., Any]:
    def often(errback: Any = None, max_retries: int | None = None, **options: Any) -> Any:
        tries = max_retries * _TRIES_FOR_ONE if max_retries else max_retries
        return ensure(errback, tries, **_PAUSES | options)

    setattr(often, _MARK, True)
    return often
