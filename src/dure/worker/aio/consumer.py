"""Celery's consumer, which connects while the loop goes on, by a transport of ours where the broker is RabbitMQ."""

from __future__ import annotations

from functools import partial
from typing import Any

from kombu.transport import pyamqp

from dure.worker.aio import amqp
from dure.worker.aio.hub import LoopHub
from dure.worker.aio.settling import Settling, Soon
from dure.worker.reconnect import look_often


class OnLoop:
    """Mixed into the consumer."""

    app: Any
    hub: Any
    _soon: Soon | None = None

    def create_task_handler(self, promise: Any = None) -> Any:
        return super().create_task_handler(promise=promise or Settling)  # type: ignore[misc]

    def call_soon_ack(self, settle: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self.hub, LoopHub):
            return super().call_soon_ack(settle, *args, **kwargs)  # type: ignore[misc]
        if self._soon is None:
            self._soon = Soon(self.hub)
        self._soon.call(partial(settle, *args, **kwargs))
        return None

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        connection = self.app.connection_for_read(heartbeat=heartbeat)
        if connection.get_transport_cls() is pyamqp.Transport and isinstance(self.hub, LoopHub):
            connection.get_transport_cls = lambda: amqp.Transport  # it stays `amqp` by name, in its log lines
        return self.ensure_connected(connection)

    def ensure_connected(self, connection: Any) -> Any:
        """Waiting for a broker that is away must not hold up what runs."""
        look_often(connection)
        connect = super().ensure_connected  # type: ignore[misc]
        hub = self.hub
        if not isinstance(hub, LoopHub) or hub.aio.is_running():
            return connect(connection)
        return hub.run(hub.aio.run_in_executor(None, connect, connection))

    def _restore_prefetch_count_after_connection_restart(self, *args: Any) -> None:
        """Celery does so in whatever thread acknowledges, which would read the answer from under the loop."""
        restore = partial(super()._restore_prefetch_count_after_connection_restart, *args)  # type: ignore[misc]
        if isinstance(self.hub, LoopHub):
            self.hub.soon(restore)
        else:
            restore()


def on_loop(consumer: type) -> type:
    if issubclass(consumer, OnLoop):
        return consumer
    return type(consumer.__name__, (OnLoop, consumer), {"__module__": consumer.__module__})
