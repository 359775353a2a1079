"""One child process of a supervisor: started, read, stopped, and never left behind.

It has a process group of its own, so that Ctrl-C in the terminal reaches the supervisor alone, which then stops
everything in order; and so that a kill reaches the pool processes of a worker too. On Linux the kernel sends it SIGTERM
when the supervisor dies, even of SIGKILL.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress

from dure.cli.program import Program

_PR_SET_PDEATHSIG = 1
_LINE_LIMIT = 1 << 20


class Child:
    """A running process; `say` gets each line that it writes, and without one it writes where we do."""

    def __init__(
        self, program: Program, process: asyncio.subprocess.Process, reading: asyncio.Task[None] | None
    ) -> None:
        self._program = program
        self._process = process
        self._reading = reading

    @classmethod
    async def start(cls, program: Program, environment: Mapping[str, str], say: Callable[[str], None] | None) -> Child:
        process = await asyncio.create_subprocess_exec(
            *program.argv,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=None if say is None else asyncio.subprocess.PIPE,
            stderr=None if say is None else asyncio.subprocess.STDOUT,
            limit=_LINE_LIMIT,
            pass_fds=program.inherits,
            process_group=0,
            preexec_fn=_die_with_parent(),
        )
        if say is None or process.stdout is None:
            return cls(program, process, None)
        return cls(program, process, asyncio.create_task(_read(process.stdout, say)))

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> int:
        """Its exit code, once it has ended and all that it wrote is read."""
        code = await self._process.wait()
        if self._reading is not None:
            # A grandchild may hold the pipe open.
            await asyncio.wait([self._reading], timeout=0.5)
            self._reading.cancel()
        return code

    def terminate(self, *, cold: bool = False) -> None:
        """Ask it to stop; only the process itself, which then stops those that it started.

        A worker ends what it runs; where `cold`, it gives it back.
        """
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGQUIT if cold and self._program.is_worker else signal.SIGTERM)

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


async def _read(stream: asyncio.StreamReader, say: Callable[[str], None]) -> None:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than the limit; what follows is read on
            continue
        if not line:
            return
        say(line.decode(errors="replace").rstrip("\r\n"))


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    # Loaded before the fork: in between only what is safe after it may be called.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before it could be asked
            os._exit(1)

    return ask
