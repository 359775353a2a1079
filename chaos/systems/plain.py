"""FastAPI in front of Celery's `.delay()`, as most teams have it: with Celery's defaults, and with `task_acks_late`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from celery import Celery
from kombu import Connection

from chaos.load import Target
from chaos.processes import Process
from chaos.systems.system import Answer, System, answering
from tests.services import RabbitMQ, Redis, Service
from tests.services.service import free_port

READY_STATES = {"SUCCESS", "FAILURE", "REVOKED"}


class Plain(System):
    name = "celery"
    summary = "two `uvicorn`, two `celery worker -c 4` (prefork), Celery's defaults; RabbitMQ, Redis as result backend"
    kinds: ClassVar[dict[str, type[Service]]] = {"rabbitmq": RabbitMQ, "redis": Redis}
    worker_count: ClassVar[int] = 2
    more: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._ports = [free_port() for _ in range(self.gateway_count)]
        self._urls = [f"http://127.0.0.1:{port}" for port in self._ports]

    @property
    def target(self) -> Target:
        return Target(self._urls, "/mark")

    async def _prepare(self) -> None:
        rabbitmq, redis = self.servers["rabbitmq"], self.servers["redis"]
        assert isinstance(rabbitmq, RabbitMQ)
        assert isinstance(redis, Redis)
        self._broker, self._results = rabbitmq.vhost(), redis.database()
        environment = {
            "CELERY_CONFIG_MODULE": "chaos.plain_settings",
            "CHAOS_BROKER_URL": await self.network.through(self._broker, rabbitmq.port),
            "CHAOS_RESULT_BACKEND": await self.network.through(self._results, redis.port),
            "CHAOS_MARKS": str(self.marks),
            **self.more,
        }
        serve = [sys.executable, "-m", "uvicorn", "chaos.plain:app", "--no-access-log", "--log-level", "warning"]
        worker = [sys.executable, "-m", "celery", "-A", "chaos.task:app", "worker", "-c", "4", "-l", "warning"]
        self.gateways = [
            Process(f"gateway-{n}", [*serve, "--port", str(port)], environment, self.folder)
            for n, port in enumerate(self._ports)
        ]
        self.workers = [
            Process(f"worker-{n}", [*worker, "-n", f"worker-{n}@chaos"], environment, self.folder)
            for n in range(self.worker_count)
        ]
        self._celery = Celery("chaos-asks", broker=self._broker, backend=self._results)

    async def ready(self) -> bool:
        return await answering(self._urls) and await asyncio.to_thread(self._consumers) >= self.worker_count

    def _consumers(self) -> int:
        connection = Connection(self._broker, connect_timeout=2)
        try:
            queue = connection.default_channel.queue_declare("celery", passive=True)  # type: ignore[attr-defined]
            return int(queue.consumer_count)
        except (*connection.connection_errors, *connection.channel_errors):
            return 0
        finally:
            connection.release()

    async def ask(self, ids: Sequence[str]) -> dict[str, Answer]:
        return await asyncio.to_thread(self._ask, ids)

    def _ask(self, ids: Sequence[str]) -> dict[str, Answer]:
        return {job_id: self._result(job_id) for job_id in ids}

    def _result(self, job_id: str) -> Answer:
        told = self._celery.AsyncResult(job_id)
        state = told.state
        return Answer(
            state=state,
            final=state in READY_STATES,
            succeeded=state == "SUCCESS",
            value=told.result if state == "SUCCESS" else None,
            detail="" if state == "SUCCESS" else repr(told.result),
        )

    def close(self) -> None:
        if self.servers:
            self._close_connections()
        super().close()

    def _close_connections(self) -> None:
        celery = getattr(self, "_celery", None)
        if celery is not None:
            celery.close()


class PlainAcksLate(Plain):
    name = "celery-acks-late"
    summary = "the same, with `task_acks_late` and `task_reject_on_worker_lost`"
    more: ClassVar[Mapping[str, str]] = {"CHAOS_ACKS_LATE": "1"}
