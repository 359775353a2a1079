"""The processes of a system under test: killed with everything below them, and started again as a supervisor would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.services.service import SUPERVISOR
from tests.services.supervisor import descendants

CHECKOUT = Path(__file__).parents[1]
_RESTART_AFTER = 0.5
_GRACE = "10"


@dataclass
class Process:
    """One command with its descendants. It ends with us, even if we are killed: the services' supervisor sees to it."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    killed: set[int] = field(default_factory=set)
    crashes: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def running(self) -> bool:
        process = self._process  # looked at once: `kill` forgets it in another thread
        return process is not None and process.poll() is None

    @property
    def wanted(self) -> bool:
        """Whether it was started and not ended by us."""
        return self._process is not None

    def start(self) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DURE_", "CELERY_", "CHAOS_"))}
        inherited |= {"PYTHONPATH": f"{CHECKOUT / 'src'}:{CHECKOUT}"}
        arguments = [str(SUPERVISOR), str(int(signal.SIGTERM)), _GRACE, str(self.folder), *self.command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=inherited | dict(self.environment),
                start_new_session=True,
            )

    def pids(self) -> list[int]:
        return descendants(self._process.pid) if self.running and self._process else []

    def kill(self) -> None:
        """SIGKILL to all of it at once."""
        self.killed.update(self.pids())
        self._end(b"kill\n")

    def stop(self) -> None:
        self._end(b"stop\n")

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, word: bytes) -> None:
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.write(word)
            process.stdin.flush()
        process.wait()
        with contextlib.suppress(OSError):
            process.stdin.close()


class Keeper:
    """Starts again what has died, half a second later; entered for as long as the system is to live."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes
        self._gone: dict[str, float] = {}

    async def run(self) -> None:
        while True:
            for process in self._processes:
                self._look_at(process)
            await asyncio.sleep(0.1)

    def _look_at(self, process: Process) -> None:
        if process.running:
            self._gone.pop(process.name, None)
            return
        since = self._gone.setdefault(process.name, time.monotonic())
        if time.monotonic() - since < _RESTART_AFTER:
            return
        if process.wanted:
            process.crashes += 1
        process.start()
        del self._gone[process.name]

    async def __aenter__(self) -> Keeper:
        self._task = asyncio.create_task(self.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
