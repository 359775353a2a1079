import socket
from dataclasses import dataclass
from typing import ClassVar

import redis

from tests.services.service import HOST, Service


@dataclass(kw_only=True)
class Redis(Service):
    name = "redis"
    programs = ("redis-server",)
    databases: ClassVar[int] = 1024

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def database(self) -> str:
        """The URL of an empty database."""
        number = next(self._numbers) % self.databases
        with redis.Redis(host=HOST, port=self.port, db=number) as connection:
            connection.flushdb()
        return f"redis://{HOST}:{self.port}/{number}"

    def _command(self) -> list[str]:
        options = {
            "port": self.port,
            "bind": HOST,
            "dir": self.folder,
            "databases": self.databases,
            "save": "",
            "appendonly": "yes" if self.durable else "no",
        }
        return [self._program(), *(str(part) for key, value in options.items() for part in (f"--{key}", value))]

    def _answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
