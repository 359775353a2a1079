from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar

from tests.services.postgres import PostgreSQL
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis
from tests.services.service import Service


class Fleet:
    """The servers of one test session: each started once, when first wanted, and beside the others."""

    kinds: ClassVar[dict[str, type[Service]]] = {kind.name: kind for kind in (RabbitMQ, Redis, PostgreSQL)}

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(len(self.kinds))
        self._starts: dict[str, Future[Service]] = {}

    def begin(self, name: str) -> Future[Service]:
        if name not in self._starts:
            self._starts[name] = self._pool.submit(self._start, name)
        return self._starts[name]

    def _start(self, name: str) -> Service:
        return self.kinds[name]().start()

    def get(self, name: str) -> Service:
        return self.begin(name).result()

    def close(self) -> None:
        for start in self._starts.values():
            if start.exception() is None:
                start.result().close()
        self._pool.shutdown()
