"""What every server of `tests.services` has in common: where it lives, how it starts and how it ends."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

HOST = "127.0.0.1"
START_TIMEOUT = 90.0
SUPERVISOR = Path(__file__).with_name("supervisor.py")


class ServiceFailed(Exception):
    def __init__(self, name: str, why: str, log: str) -> None:
        super().__init__(f"{name} {why}\n{log}")
        self.name = name
        self.log = log


_handed_out: set[int] = set()


def free_port() -> int:
    """A port below the ephemeral range, so that no outgoing connection takes it between a kill and a restart.

    The workers of xdist draw from shares of their own: none is given what another one has not taken yet.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = random.randrange(15000 + worker, 32000, workers)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))  # on every address: some servers listen on more than loopback
            if port not in _handed_out:
                _handed_out.add(port)
                return port


def find(*candidates: str) -> str | None:
    """The first of these programs that exists; a pattern stands for its last match (the newest version)."""
    for candidate in candidates:
        if "*" in candidate:
            matches = sorted(Path("/").glob(candidate.lstrip("/")), key=lambda path: (len(str(path)), path))
            if matches:
                return str(matches[-1])
        elif found := shutil.which(candidate):
            return found
    return None


@dataclass(kw_only=True)
class Service:
    """One server. `start`, `stop` (politely), `kill` and `restart` keep port and data; `close` forgets both."""

    name: ClassVar[str]
    programs: ClassVar[tuple[str, ...]]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    last_word: ClassVar[bytes] = b"kill\n"

    durable: bool = False
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="dure-")))
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1), repr=False)

    @classmethod
    def missing(cls) -> str | None:
        """Why this machine cannot run it, or None."""
        return None if find(*cls.programs) else f"{cls.name} is not installed"

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def _program(self) -> str:
        program = find(*self.programs)
        if program is None:
            raise ServiceFailed(self.name, "is not installed", "")
        return program

    def _prepare(self) -> None:
        """Write what the server reads; called before the first start."""

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _answers(self) -> bool:
        """Whether it takes work; any OSError means not yet."""
        raise NotImplementedError

    def start(self) -> Self:
        if self.running:
            return self
        if not self.log.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._prepare()
        supervised = [str(SUPERVISOR), str(int(self.stop_signal)), "30", str(self.folder), *self._command()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", *supervised],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise
        return self

    def _wait(self) -> None:
        end = time.monotonic() + START_TIMEOUT
        while True:
            with contextlib.suppress(OSError):
                if self._answers():
                    return
            if not self.running or time.monotonic() > end:
                why = "did not answer in time" if self.running else "ended while starting"
                raise ServiceFailed(self.name, why, self.log.read_text(errors="replace")[-4000:])
            time.sleep(0.03)

    def _end(self, word: bytes) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(word)
            process.stdin.flush()
        process.wait()
        with contextlib.suppress(OSError):
            process.stdin.close()

    def stop(self) -> None:
        self._end(b"stop\n")

    def kill(self) -> None:
        """SIGKILL to every process of it: what a power cut leaves, but for the disk cache."""
        self._end(b"kill\n")

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        self._end(self.last_word)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()
