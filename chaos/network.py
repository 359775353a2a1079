"""The network between the system's processes and its servers.

Loss and cuts are the kernel's: rules of nftables drop the packets to and from the servers' ports as they arrive, so
TCP sees what it would on a bad line, and nobody is told. They live in a network namespace of the run's own (see
`isolation`), and end with it. Delay has no such rule, so for it a small proxy stands in the way, which hands on what it
read after a pause; order is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

_HOST = "127.0.0.1"
_CHUNK = 65_536


@dataclass
class Network:
    """`proxied` puts a proxy before each server; without, processes and servers are connected directly."""

    proxied: bool = False
    ports: list[int] = field(default_factory=list)
    _mean: float = 0.0
    _spread: float = 0.0
    _servers: list[asyncio.Server] = field(default_factory=list)
    _pipes: set[asyncio.Task[None]] = field(default_factory=set)

    async def through(self, url: str, port: int) -> str:
        """The URL by which processes reach the server with `port`."""
        self.ports.append(port)
        if not self.proxied:
            return url
        server = await asyncio.start_server(lambda r, w: self._serve(port, r, w), _HOST, 0)
        self._servers.append(server)
        return url.replace(f":{port}", f":{server.sockets[0].getsockname()[1]}")

    @contextlib.contextmanager
    def losing(self, percent: int) -> Iterator[None]:
        """That many of a hundred packets never arrive, in each direction; 100 cuts the line."""
        _nft(_rules(self.ports, percent))
        try:
            yield
        finally:
            _nft("delete table inet chaos")

    @contextlib.contextmanager
    def delaying(self, seconds: float, spread: float) -> Iterator[None]:
        """What is sent arrives `seconds` later, give or take `spread`."""
        self._mean, self._spread = seconds, spread
        try:
            yield
        finally:
            self._mean = self._spread = 0.0

    async def _serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(_HOST, port)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            pipe = asyncio.create_task(self._pipe(source, sink))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Chunks wait side by side, each for its own time, and leave in the order in which they came."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1000)
        reading = asyncio.create_task(self._read(source, line))
        try:
            while True:
                due, chunk = await line.get()
                await asyncio.sleep(max(0.0, due - _now()))
                if not chunk:
                    return
                sink.write(chunk)
                await sink.drain()
        except OSError:
            return
        finally:
            reading.cancel()
            sink.close()

    async def _read(self, source: asyncio.StreamReader, line: asyncio.Queue[tuple[float, bytes]]) -> None:
        chunk = b"-"
        while chunk:
            try:
                chunk = await source.read(_CHUNK)
            except OSError:
                chunk = b""
            delay = self._mean + random.uniform(-self._spread, self._spread)
            await line.put((_now() + delay, chunk))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)


def missing() -> str | None:
    """Why packets cannot be dropped on this machine, or None."""
    return None if shutil.which("nft") else "nftables is not installed"


def _now() -> float:
    return asyncio.get_running_loop().time()


def _rules(ports: list[int], percent: int) -> str:
    listed = ", ".join(map(str, ports))
    chance = "" if percent >= 100 else f"numgen random mod 100 < {percent}"
    # On arrival, not on departure: a sender would be told of the latter.
    return f"""
        table inet chaos {{
            chain arriving {{
                type filter hook input priority 0;
                tcp dport {{ {listed} }} {chance} drop
                tcp sport {{ {listed} }} {chance} drop
            }}
        }}
    """


def _nft(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, check=True, text=True, capture_output=True)
