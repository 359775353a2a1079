"""Keeps the processes of `dure up` running until it is told to stop.

A process that dies is started again, after a pause that doubles from half a second to ten; one that then runs for a
while has its next pause short again. One of ours that ends with exit code 2 said that its configuration is wrong:
starting it again cannot help, so everything stops. The first Ctrl-C or SIGTERM stops all, the worker with time for
what it runs and then the gateway; the second, or ten seconds for each, kills.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress

from dure.cli.child import Child
from dure.cli.codes import Code
from dure.cli.output import Output
from dure.cli.readiness import Readiness
from dure.cli.stack import GATEWAY, WORKER, Program, Stack

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
_STEADY_SECONDS = 10.0
_GRACE_SECONDS = 10.0
_LOOK_SECONDS = 0.05


class Supervisor:
    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._output = Output([program.name for program in stack.programs])
        self._children: dict[str, Child] = {}
        self._stopping = asyncio.Event()
        self._code = Code.DONE

    async def run(self) -> int:
        """The exit code, once every child has ended."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled)
        keeping = [asyncio.create_task(self._keep(program), name=program.name) for program in self._stack.programs]
        telling = asyncio.create_task(self._tell_ready())
        # A keeper ends by itself only where a program cannot even be started.
        await asyncio.wait([asyncio.create_task(self._stopping.wait()), *keeping], return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        telling.cancel()
        await self._stop(keeping)
        return self._code

    def _signalled(self) -> None:
        if self._stopping.is_set():
            self._kill()
        else:
            self._output.tell("stopping; once more to kill")
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
        say = self._output.prefixed(program.name)
        child = await Child.start(program, self._stack.environment, say)
        self._children[program.name] = child
        if self._stopping.is_set():
            child.terminate()
        try:
            return await child.ended()
        finally:
            del self._children[program.name]

    async def _stop(self, keeping: list[asyncio.Task[None]]) -> None:
        # The gateway last: it records how the worker's last jobs ended.
        for last in (False, True):
            await self._end([keep for keep in keeping if (keep.get_name() == GATEWAY) is last])
        await asyncio.gather(*keeping)

    async def _end(self, keeping: list[asyncio.Task[None]]) -> None:
        names = {keep.get_name() for keep in keeping}
        for name in names & self._children.keys():
            self._children[name].terminate()
        _, late = await asyncio.wait(keeping, timeout=_GRACE_SECONDS)
        if late:
            self._output.tell(f"killed after {_GRACE_SECONDS:g} s: {', '.join(sorted(k.get_name() for k in late))}")
            for keep in late:
                self._children[keep.get_name()].kill()

    def _kill(self) -> None:
        for child in self._children.values():
            child.kill()

    async def _tell_ready(self) -> None:
        readiness = Readiness(self._stack.url, self._stack.settings)
        began = time.monotonic()
        while True:
            worker = self._children.get(WORKER)
            if worker is not None and await asyncio.to_thread(readiness.look, worker.pid):
                break
            await asyncio.sleep(_LOOK_SECONDS)
        self._output.welcome(self._stack, time.monotonic() - began)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
