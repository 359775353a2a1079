"""Gateways as `dure serve` runs them, with a worker of tasks that tell; and how their feeds are read."""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent, connect_sse
from websockets.sync.client import ClientConnection, connect

from tests.acceptance.site import PATIENCE, Site, until
from tests.services.service import free_port

TASKS = ["feed.count", "feed.flood", "feed.steps", "shop.add", "shop.fail", "shop.sleep"]
WS = "dure.v1"
# A flood is more than a job's history keeps, and a reader that falls behind would be told so.
KEEPS_ALL = {"DURE_FEED_BYTES": "100000000"}


@dataclass(frozen=True)
class Gateway:
    """One `dure serve` of a site."""

    place: Site
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, **options)

    def websocket(self, query: str = "", **options: Any) -> ClientConnection:
        options = {"subprotocols": [WS], "proxy": None, "max_size": None} | options
        return connect(f"ws://127.0.0.1:{self.port}/api/v1/ws{query}", **options)


def serve(place: Site, name: str = "gateway", **environ: str) -> Gateway:
    port = free_port()
    process = place.start(name, "dure", "serve", DURE_PORT=str(port), **environ)
    gateway = Gateway(place, port, process.pid)
    with gateway.client() as http:

        def answers() -> bool:
            assert process.poll() is None, place.log(name).read_text()
            try:
                return http.get("/healthz").status_code == 200
            except httpx.TransportError:
                return False

        until(answers, f"the gateway {name}")
    return gateway


def start_worker(place: Site) -> None:
    place.start("worker", "dure", "worker", "-A", "tests.acceptance.feed_tasks:app", "-n", "feed@here", "-c", "4")


def await_tasks(gateway: Gateway, **headers: str) -> None:
    with gateway.client(headers=headers) as http:

        def announced() -> bool:
            return {task["name"] for task in http.get("/api/v1/tasks").json().get("tasks", [])} >= set(TASKS)

        until(announced, "the announcement of the tasks")


@contextmanager
def reading(http: httpx.Client, path: str, last: str | None = None, **params: str) -> Iterator[EventSource]:
    headers = {} if last is None else {"Last-Event-ID": last}
    with connect_sse(http, "GET", path, headers=headers, params=params) as source:
        assert source.response.status_code == 200, source.response.read()
        # What keeps the connection alive would also keep a test waiting that waits in vain.
        connection = source.response.extensions["network_stream"].get_extra_info("socket")
        watchdog = Timer(2 * PATIENCE, connection.shutdown, [socket.SHUT_RDWR])
        watchdog.start()
        try:
            yield source
        finally:
            watchdog.cancel()


def events(source: EventSource) -> Iterator[ServerSentEvent]:
    """Without what only tells the browser when to come again."""
    return (event for event in source.iter_sse() if event.id or event.data)


def data(event: ServerSentEvent) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.data)
    return found


def whole(http: httpx.Client, path: str, last: str | None = None, **params: str) -> list[ServerSentEvent]:
    """The feed up to its end."""
    with reading(http, path, last, **params) as source:
        return list(events(source))


def outputs(found: list[ServerSentEvent]) -> list[Any]:
    return [data(event)["chunk"] for event in found if event.event == "output"]


def asked(connection: ClientConnection, **message: Any) -> None:
    connection.send(json.dumps(message))


def told(connection: ClientConnection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(connection.recv(PATIENCE))
    return found


def until_done(connection: ClientConnection, ref: str) -> list[dict[str, Any]]:
    """All that was told under the ref, up to its `done`."""
    found = []
    while True:
        message = told(connection)
        if message.get("ref") == ref:
            found.append(message)
            if message["type"] in ("done", "error"):
                return found


def deaf(gateway: Gateway, request: bytes) -> socket.socket:
    """A connection whose reader takes nothing more than the first answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", gateway.port))
    connection.sendall(request)
    return connection


def figure(http: httpx.Client, name: str, over: str) -> float:
    for line in http.get("/metrics").text.splitlines():
        if line.startswith(f'{name}{{over="{over}"}} '):
            return float(line.rpartition(" ")[2])
    return 0.0
