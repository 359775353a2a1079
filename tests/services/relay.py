"""A TCP line to a server, which can be cut without a word: what a firewall does that forgets a connection."""

import asyncio
import threading
from typing import Self

from tests.services.service import HOST

_CHUNK = 65_536


class Relay:
    """`cut` ends the connections that are there, for the server; who connected is told nothing. New ones work."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._cut: set[asyncio.Task[None]] = set()
        self._open: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> int:
        """Returns how many connections there were."""

        async def cut() -> int:
            there = [*self._open]
            for task in there:
                self._cut.add(task)
                self._open[task][1].close()
            return len(there)

        return asyncio.run_coroutine_threadsafe(cut(), self._loop).result()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, HOST, 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(HOST, self._target)
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = (writer, there_writer)
        copies = (self._copy(task, reader, there_writer), self._copy(task, there_reader, writer))
        try:
            await asyncio.gather(*copies, return_exceptions=True)
        finally:
            if task not in self._cut:
                writer.close()
                there_writer.close()
                del self._open[task]

    async def _copy(self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                if task not in self._cut:
                    writer.write(data)
                    await writer.drain()
        finally:
            if task not in self._cut:
                writer.close()

    async def _close(self) -> None:
        self._server.close()
        for task, writers in [*self._open.items()]:
            for writer in writers:
                writer.close()
            task.cancel()
        await asyncio.sleep(0)
