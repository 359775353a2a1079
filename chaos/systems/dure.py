"""Dure: with RabbitMQ, PostgreSQL and Redis, and with nothing but a folder."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import httpx

from chaos.load import Target
from chaos.processes import Process
from chaos.systems.system import Answer, System, answering
from tests.services import PostgreSQL, RabbitMQ, Redis, Service
from tests.services.service import free_port

FINAL = {"SUCCESS", "FAILURE", "REVOKED"}
SETTLE_AFTER = 20
_ASKED_AT_ONCE = 8
_PAGE = 500


class _Dure(System):
    worker_count: ClassVar[int] = 2

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._ports = [free_port() for _ in range(self.gateway_count)]
        self._urls = [f"http://127.0.0.1:{port}" for port in self._ports]
        self._turns = itertools.cycle(self._urls)

    @property
    def target(self) -> Target:
        return Target(self._urls, "/api/v1/tasks/chaos.mark")

    def _build(self, environment: Mapping[str, str]) -> None:
        common = {
            "CHAOS_MARKS": str(self.marks),
            "DURE_HOME": str(self.home),
            "DURE_LOG_LEVEL": "warning",
            "DURE_SETTLE_AFTER": str(SETTLE_AFTER),
            "NO_COLOR": "1",
            **environment,
        }
        dure = [sys.executable, "-m", "dure"]
        worker = [*dure, "worker", "-A", "chaos.task:app", "-P", "threads", "-c", "8", "-l", "warning"]
        self.gateways = [
            Process(f"gateway-{n}", [*dure, "serve", "--port", str(port)], common, self.folder)
            for n, port in enumerate(self._ports)
        ]
        self.workers = [
            Process(f"worker-{n}", [*worker, "-n", f"worker-{n}@chaos"], common, self.folder)
            for n in range(self.worker_count)
        ]

    async def ready(self) -> bool:
        if not await answering(self._urls):
            return False
        async with httpx.AsyncClient(verify=False, timeout=5, trust_env=False) as client:
            for url in self._urls:
                try:
                    task = await client.get(f"{url}/api/v1/tasks/chaos.mark")
                    queues = await client.get(f"{url}/api/v1/queues")
                except httpx.TransportError:
                    return False
                if task.status_code != 200 or queues.status_code != 200:
                    return False
                consumers = {queue["name"]: queue["consumers"] for queue in queues.json()["queues"]}
                if consumers.get("celery", 0) < self.worker_count:
                    return False
        return True

    async def ask(self, ids: Sequence[str]) -> dict[str, Answer]:
        found = await self._listed(ids) if len(ids) > _PAGE else {}
        waiting = iter([job_id for job_id in ids if job_id not in found])

        async def ask_in_turn() -> None:
            async with httpx.AsyncClient(verify=False, timeout=10, trust_env=False) as client:
                for job_id in waiting:
                    with contextlib.suppress(httpx.TransportError):
                        response = await client.get(f"{next(self._turns)}/api/v1/jobs/{job_id}")
                        if response.status_code == 404:
                            found[job_id] = Answer(state="unknown", final=False)
                        elif response.status_code == 200:
                            found[job_id] = _read(response.json())

        await asyncio.gather(*(ask_in_turn() for _ in range(_ASKED_AT_ONCE)))
        return found

    async def _listed(self, ids: Sequence[str]) -> dict[str, Answer]:
        """Those of these jobs that the list has, read page by page."""
        found: dict[str, Answer] = {}
        wanted, cursor = set(ids), ""
        with contextlib.suppress(httpx.TransportError):
            async with httpx.AsyncClient(verify=False, timeout=30, trust_env=False) as client:
                while len(found) < len(wanted):
                    query = {"limit": str(_PAGE), **({"cursor": cursor} if cursor else {})}
                    response = await client.get(f"{next(self._turns)}/api/v1/jobs", params=query)
                    if response.status_code != 200:
                        break
                    page = response.json()
                    found |= {job["id"]: _read(job) for job in page["jobs"] if job["id"] in wanted}
                    cursor = page["next"]
                    if cursor is None:
                        break
        return found


def _read(job: Mapping[str, Any]) -> Answer:
    state = job["state"]
    return Answer(
        state=state if not job["reason"] else f"{state} {job['reason']}",
        final=state in FINAL,
        succeeded=state == "SUCCESS",
        value=job["result"],
        detail=", ".join(f"{name}={job[name]}" for name in ("attempts", "worker", "queued_at", "started_at")),
    )


class Production(_Dure):
    name = "dure"
    summary = (
        "two `dure serve`, two `dure worker -P threads -c 8`; RabbitMQ, PostgreSQL, Redis as result backend; "
        f"`DURE_SETTLE_AFTER={SETTLE_AFTER}`, so that what is silent is settled while we wait"
    )
    kinds: ClassVar[dict[str, type[Service]]] = {"rabbitmq": RabbitMQ, "postgres": PostgreSQL, "redis": Redis}

    async def _prepare(self) -> None:
        rabbitmq, postgres, redis = (self.servers[name] for name in ("rabbitmq", "postgres", "redis"))
        assert isinstance(rabbitmq, RabbitMQ)
        assert isinstance(postgres, PostgreSQL)
        assert isinstance(redis, Redis)
        self._build(
            {
                "DURE_BROKER_URL": await self.network.through(rabbitmq.vhost(), rabbitmq.port),
                "DURE_LEDGER_URL": await self.network.through(postgres.database(), postgres.port),
                "DURE_RESULT_BACKEND": await self.network.through(redis.database(), redis.port),
            }
        )


class Embedded(_Dure):
    name = "dure-embedded"
    summary = "one `dure serve`, two `dure worker -P threads -c 8`, on one folder of SQLite files; settings alike"
    gateway_count = 1
    files = True

    async def _prepare(self) -> None:
        self._build({})
