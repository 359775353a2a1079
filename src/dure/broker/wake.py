"""Waking an idle consumer in another process: one byte over loopback UDP, sent after the commit.

A wake is a hint. It can be lost (a full socket buffer, another network namespace) and it can come for nothing;
consumers therefore also look at the file now and then, and claim until there is nothing.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

_LOOPBACK = "127.0.0.1"


class WakeSocket:
    """The ear of one session: its port is in the sessions table."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((_LOOPBACK, 0))
        self.port: int = self._socket.getsockname()[1]

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._socket.recv(16)

    def close(self) -> None:
        self._socket.close()


class WakeSender:
    """The voice of one store; made on first use, never waits."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def send(self, ports: Iterable[int]) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        for port in ports:
            with contextlib.suppress(OSError):
                self._socket.sendto(b"\0", (_LOOPBACK, port))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
