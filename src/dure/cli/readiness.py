"""Whether what `dure up` started can be used: asked of the gateway over HTTP, as a user would.

A worker counts once the ledger knows its tasks, for only then does the gateway take jobs for them. It is known by
its process id, since the row of an earlier worker of the same name may still be there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from dure.settings import Settings

# A worker announces its tasks right after it said that it is there; one that has none announces nothing to wait for.
_NO_TASKS_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0


class Readiness:
    """`look` blocks, so it is called in a thread."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._address = urlsplit(url)
        self._headers = {}
        if settings.api_keys:
            self._headers["Authorization"] = f"Bearer {settings.api_keys[0].get_secret_value()}"
        self._seen_at: float | None = None

    def look(self, pids: Sequence[int]) -> bool:
        """`pids` are the workers'."""
        try:
            return self._status("/readyz") == 200 and self._workers_are_known(pids)
        except (OSError, HTTPException, ValueError, KeyError):
            return False

    def _workers_are_known(self, pids: Sequence[int]) -> bool:
        workers = self._get("/api/v1/workers")["workers"]
        mine = [worker for worker in workers if worker["pid"] in pids and worker["online"]]
        if len(mine) < len(pids):
            return False
        self._seen_at = self._seen_at or time.monotonic()
        if time.monotonic() - self._seen_at > _NO_TASKS_SECONDS:
            return True
        return any(_announced(task, worker) for task in self._get("/api/v1/tasks")["tasks"] for worker in mine)

    def _status(self, path: str) -> int:
        return self._ask(path)[0]

    def _get(self, path: str) -> Any:
        status, body = self._ask(path)
        if status != 200:
            raise ValueError(f"{path} answered {status}")
        return json.loads(body)

    def _ask(self, path: str) -> tuple[int, bytes]:
        connection = HTTPConnection(self._address.hostname or "", self._address.port, timeout=_PATIENCE_SECONDS)
        try:
            connection.request("GET", path, headers=self._headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _announced(task: Mapping[str, Any], worker: Mapping[str, Any]) -> bool:
    since = worker["started_at"]
    return task["announced_by"] == worker["hostname"] and (
        since is None or datetime.fromisoformat(task["announced_at"]) >= datetime.fromisoformat(since)
    )
