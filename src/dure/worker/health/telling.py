"""Tells the worker's health, by HTTP or in a file, from threads that wait for nothing of the worker's."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from celery.utils.nodenames import node_format

from dure.errors import ConfigurationError, Problem
from dure.probe import File, Port
from dure.worker import log

Tell = Callable[[], dict[str, Any]]

_EVERY = 1.0
_NAME = "worker_health"
_CLIENT_SECONDS = 5.0


class Server(ThreadingHTTPServer):
    """`/live` is 200 while the process lives, `/ready` and all else while it also consumes; else 503."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, place: Port, tell: Tell) -> None:
        self.tell = tell
        self.address_family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        try:
            super().__init__((place.host, place.port), _Handler)
        except OSError as exc:
            remedy = "name a port that is free, one for each worker of a machine; or a file"
            raise ConfigurationError(
                [Problem(_NAME, f"cannot listen on {place}: {exc.strerror or exc}", remedy)]
            ) from exc
        # Prefork's children would keep the port when this process is killed.
        os.register_at_fork(after_in_child=self.socket.close)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # http.server's asks the DNS for our name

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(60.0,), name="dure-health", daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A probe that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = _CLIENT_SECONDS

    def do_GET(self) -> None:
        told = self.server.tell()
        is_well = told["alive"] and (told["consuming"] or self.path.partition("?")[0] == "/live")
        body = json.dumps(told).encode()
        self.send_response(HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  http.server's names

    def log_message(self, *_: Any) -> None:
        """A probe each second is nothing to tell of."""


class Writer:
    """Rewrites the file each second, so its time says that the worker lives; gone after an orderly end."""

    def __init__(self, place: File, tell: Tell) -> None:
        self._place = place
        self._tell = tell
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed = False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self._folder, os.W_OK):
                raise PermissionError(f"{self._folder} cannot be written")
        except OSError as exc:
            remedy = "name a file in a folder that this user can write"
            raise ConfigurationError([Problem(_NAME, f"cannot write {place.path}: {exc}", remedy)]) from exc

    @property
    def _folder(self) -> Path:
        return Path(self._place.path).parent

    def start(self, hostname: str) -> None:
        path = Path(node_format(self._place.path, hostname))
        self._thread = threading.Thread(target=self._run, args=(path,), name="dure-health", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join(_CLIENT_SECONDS)

    def _run(self, path: Path) -> None:
        # Whoever reads finds a whole one.
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        while not self._end.is_set():
            try:
                draft.write_text(json.dumps(self._tell()) + "\n")
                draft.replace(path)
                self._failed = False
            except OSError as exc:
                if not self._failed:
                    log.health_not_written(str(path), exc)
                self._failed = True
            self._end.wait(_EVERY)
        for left in (path, draft):
            with suppress(OSError):
                left.unlink()
