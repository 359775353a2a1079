"""The proxy that stands in a delayed line."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from chaos.network import Network


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


@pytest.fixture
async def line() -> AsyncIterator[tuple[Network, int]]:
    network = Network(proxied=True)
    async with await asyncio.start_server(_echo, "127.0.0.1", 0) as server:
        url = await network.through(f"tcp://127.0.0.1:{(port := server.sockets[0].getsockname()[1])}", port)
        yield network, int(url.rpartition(":")[2])
        await network.close()


async def test_what_is_sent_through_a_proxy_arrives_in_order(line: tuple[Network, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", line[1])
    with line[0].delaying(0.01, 0.01):
        for n in range(50):
            writer.write(bytes([n]))
            await asyncio.sleep(0.001)
        assert await reader.readexactly(50) == bytes(range(50))
    writer.close()


async def test_a_delayed_line_takes_its_time_in_each_direction(line: tuple[Network, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", line[1])
    with line[0].delaying(0.1, 0.0):
        began = time.monotonic()
        writer.write(b"x")
        await reader.readexactly(1)
        assert time.monotonic() - began >= 0.2
    writer.close()


async def test_the_end_of_one_side_reaches_the_other(line: tuple[Network, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", line[1])
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
