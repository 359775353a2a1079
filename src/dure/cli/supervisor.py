"""Keeps the processes of `dure up`, or of `dure worker --processes`, running until it is told to stop.

A process that dies is started again, after a pause that doubles from half a second to ten; one that then runs for a
while has its next pause short again. One of ours that ends with exit code 2 said that its configuration is wrong:
starting it again cannot help, so everything stops. The first Ctrl-C or SIGTERM stops all, workers with time for what
they run (SIGQUIT: they give it back), and what is to be last at the end; the second, or the end of the grace, kills.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from dure.cli.child import Child
from dure.cli.codes import Code
from dure.cli.output import Output
from dure.cli.program import Program

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
_STEADY_SECONDS = 10.0


class Supervisor:
    """`grace` is how many seconds a process has to stop; None: as long as it needs."""

    def __init__(
        self, programs: Sequence[Program], environment: Mapping[str, str], output: Output, *, grace: float | None
    ) -> None:
        self._programs = programs
        self._environment = environment
        self._output = output
        self._grace = grace
        self._children: dict[str, Child] = {}
        self._stopping = asyncio.Event()
        self._cold = False
        self._code = Code.DONE

    @property
    def worker_pids(self) -> list[int]:
        """Those of all workers; empty while one of them does not run."""
        names = [program.name for program in self._programs if program.is_worker]
        running = [self._children[name].pid for name in names if name in self._children]
        return running if len(running) == len(names) else []

    async def run(self, beside: Callable[[], Awaitable[None]] | None = None) -> int:
        """The exit code, once every child has ended; `beside` is done meanwhile, until all is to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            loop.add_signal_handler(number, self._signalled, number)
        keeping = {program: asyncio.create_task(self._keep(program)) for program in self._programs}
        telling = asyncio.ensure_future(beside()) if beside is not None else None
        # A keeper ends by itself only where a program cannot even be started.
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopping, *keeping.values()], return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        if telling is not None:
            telling.cancel()
        await self._stop(keeping)
        return self._code

    def _signalled(self, number: int) -> None:
        if self._stopping.is_set():
            self._kill()
        else:
            self._output.tell("stopping; once more to kill")
            self._cold = number == signal.SIGQUIT
            self._stopping.set()

    async def _keep(self, program: Program) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once(program)
            if self._stopping.is_set():
                return
            if program.ours and code == Code.USAGE:
                self._output.tell(f"{program.name} cannot run as it is configured; stopping")
                self._code = Code.USAGE
                self._stopping.set()
                return
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            self._output.tell(f"{program.name} ended ({_ending(code)}); starts again in {pause:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _run_once(self, program: Program) -> int:
        child = await Child.start(program, self._environment, self._output.prefixed(program.name))
        self._children[program.name] = child
        if self._stopping.is_set():
            child.terminate(cold=self._cold)
        try:
            return await child.ended()
        finally:
            del self._children[program.name]

    async def _stop(self, keeping: Mapping[Program, asyncio.Task[None]]) -> None:
        for last in (False, True):
            await self._end({program: keep for program, keep in keeping.items() if program.last is last})
        await asyncio.gather(*keeping.values())

    async def _end(self, keeping: Mapping[Program, asyncio.Task[None]]) -> None:
        if not keeping:
            return
        for name in {program.name for program in keeping} & self._children.keys():
            self._children[name].terminate(cold=self._cold)
        _, late = await asyncio.wait(keeping.values(), timeout=self._grace)
        names = [program.name for program, keep in keeping.items() if keep in late]
        if names:
            self._output.tell(f"killed after {self._grace:g} s: {', '.join(sorted(names))}")
            for name in names:
                self._children[name].kill()

    def _kill(self) -> None:
        for child in self._children.values():
            child.kill()


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
