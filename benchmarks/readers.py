"""Many readers of event streams in one process that does nothing else: `python -m benchmarks.readers < urls`.

Each chunk is the time at which it was emitted. It is cut out of the bytes as they come, so what is measured is the
server. Prints one JSON object at the end: how late each chunk was, and how many did not come.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

_CHUNK = re.compile(rb'"chunk":([0-9.]+)')
_RESULT = re.compile(rb'^event: result\r?\ndata: .*"result":([0-9]+)', re.MULTILINE)
_AT_ONCE = 65_536


class _Reader:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port))
        request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n\r\n"
        self.socket.sendall(request.encode())
        self.seen = 0
        self.total: int | None = None
        self._rest = b""

    def read(self) -> Sequence[bytes]:
        """The chunks that came."""
        data = self.socket.recv(_AT_ONCE)
        if not data:
            raise RuntimeError("a feed ended before its job")
        text = self._rest + data
        whole = text.rfind(b"\n\n") + 2 if b"\n\n" in text else 0
        self._rest = text[whole:]
        chunks = _CHUNK.findall(text, 0, whole)
        self.seen += len(chunks)
        if found := _RESULT.search(text, 0, whole):
            self.total = int(found[1])
        return chunks


def follow(urls: Iterable[str]) -> dict[str, object]:
    readers = {reader.socket.fileno(): reader for reader in map(_Reader, urls)}
    late: list[float] = []
    missing = 0
    poll = select.epoll()
    for number in readers:
        poll.register(number, select.EPOLLIN)
    while readers:
        for number, _ in poll.poll():
            reader = readers[number]
            chunks = reader.read()
            now = time.time()
            late += [now - float(chunk) for chunk in chunks]
            if reader.total is not None:
                missing += reader.total - reader.seen
                poll.unregister(number)
                reader.socket.close()
                del readers[number]
    return {"late": late, "missing": missing}


if __name__ == "__main__":
    json.dump(follow(sys.stdin.read().split()), sys.stdout)
