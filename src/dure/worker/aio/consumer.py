"""Celery's consumer, which connects while the loop goes on."""

from __future__ import annotations

from typing import Any

from kombu.asynchronous import get_event_loop

from dure.worker.aio.hub import LoopHub


class Connecting:
    """Mixed into the consumer: waiting for a broker that is away must not hold up what runs."""

    def ensure_connected(self, connection: Any) -> Any:
        connect = super().ensure_connected  # type: ignore[misc]
        hub = get_event_loop()
        if not isinstance(hub, LoopHub) or hub.aio.is_running():
            return connect(connection)
        return hub.run(hub.aio.run_in_executor(None, connect, connection))


def on_loop(consumer: type) -> type:
    if issubclass(consumer, Connecting):
        return consumer
    return type(consumer.__name__, (Connecting, consumer), {"__module__": consumer.__module__})
