"""What a system under test is to the harness: servers and processes to strike at, and answers about jobs."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import httpx

from chaos.load import Target
from chaos.network import Network
from chaos.processes import Process
from tests.services import Service

START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the system says of one job. `state` is its own word for it."""

    state: str
    final: bool
    succeeded: bool = False
    value: Any = None
    detail: str = ""


class NotReady(Exception):
    def __init__(self, system: str, what: str, folder: Path) -> None:
        logs = "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in folder.glob("*.log"))
        super().__init__(f"{system}: {what} within {START_SECONDS:g} s\n{logs}")


class System(ABC):
    """Built for one cell: `start`, strike, ask, `close`.

    `servers` are by kind (`rabbitmq`, `redis`, `postgres`); the processes of each tier can stand in for one another.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    kinds: ClassVar[dict[str, type[Service]]] = {}
    gateway_count: ClassVar[int] = 2
    files: ClassVar[bool] = False
    """Whether broker and ledger are SQLite files in `home`."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder = folder
        self.network = network
        self.marks = folder / "marks"
        self.home = folder / "home"
        self.servers: dict[str, Service] = {}
        self.gateways: list[Process] = []
        self.workers: list[Process] = []

    @property
    def processes(self) -> list[Process]:
        return [*self.gateways, *self.workers]

    @property
    def killed(self) -> set[int]:
        return {pid for process in self.processes for pid in process.killed}

    @property
    @abstractmethod
    def target(self) -> Target: ...

    async def start(self) -> None:
        """Servers, then processes; returns when a job would be accepted and run."""
        self.home.mkdir(exist_ok=True)
        await asyncio.to_thread(self._start_servers)
        await self._prepare()
        for process in self.processes:
            process.start()
        await self._until_ready()

    def _start_servers(self) -> None:
        for name, kind in self.kinds.items():
            self.servers[name] = kind(durable=True)
        with ThreadPoolExecutor(max(1, len(self.servers))) as pool:
            for begun in [pool.submit(server.start) for server in self.servers.values()]:
                begun.result()

    @abstractmethod
    async def _prepare(self) -> None:
        """Build the processes, now that the servers' addresses are known."""

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not await self.ready():
            if time.monotonic() > deadline:
                raise NotReady(self.name, "was not ready", self.folder)
            await asyncio.sleep(0.1)

    @abstractmethod
    async def ready(self) -> bool:
        """Whether every worker takes messages and every gateway answers."""

    @abstractmethod
    async def ask(self, ids: Sequence[str]) -> dict[str, Answer]:
        """What the system says of these jobs; those that could not be asked after now are left out."""

    def heal(self) -> None:
        """Every server runs, no process is frozen, nothing is cut."""
        for server in self.servers.values():
            server.start()
        for process in self.processes:
            process.thaw()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for server in self.servers.values():
            server.close()


async def answering(urls: Sequence[str]) -> bool:
    """Whether each gateway says that it lives."""
    async with httpx.AsyncClient(verify=False, timeout=2, trust_env=False) as client:
        try:
            answers = [await client.get(f"{url}/healthz") for url in urls]
        except httpx.TransportError:
            return False
    return all(answer.status_code == 200 for answer in answers)
