"""`dure up` as a real process, on free ports and in a folder of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.processes import children
from tests.services.service import free_port

CHECKOUT = Path(__file__).parents[2]
_DEADLINE = 60.0


def until(holds: Callable[[], bool], what: Callable[[], str] = lambda: "", deadline: float = _DEADLINE) -> None:
    end = time.monotonic() + deadline
    while not holds():
        assert time.monotonic() < end, f"not within {deadline:g} s; {what()}"
        time.sleep(0.02)


class Up:
    """Enters once the stack is ready; leaves with nothing of it running."""

    def __init__(self, home: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = arguments
        self.environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **(environment or {})}
        self._log = home / "up.log"

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")  # a line that is being written may end within a character

    def start(self) -> None:
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                self.command("up", "--port", str(self.port), *self._arguments),
                cwd=CHECKOUT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def command(self, name: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dure", name, "--home", str(self.home / "dure"), *arguments]

    def dure(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name, *arguments),
            cwd=CHECKOUT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
        )

    def tells(self, text: str, times: int = 1) -> None:
        def told() -> bool:
            assert self.process.poll() is None or self.output.count(text) >= times, self.output
            return self.output.count(text) >= times

        until(told, lambda: self.output)

    def children(self) -> dict[str, int]:
        """Process ids by what they are."""
        found = {}
        for pid, words in children(self.process.pid).items():
            names = words[3:4] if words[1:3] == ["-m", "dure"] else [w for w in words if "uvicorn" in w] or words
            if names:  # in the midst of an exec there is none
                found[Path(names[0]).name] = pid
        return found

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(_DEADLINE)

    def __enter__(self) -> Self:
        self.start()
        try:
            self.tells("Dure is ready")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()
