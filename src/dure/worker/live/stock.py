"""For stock workers: `celery -A proj worker -E -I dure.worker.live.stock`."""

from __future__ import annotations

from dure.settings import load
from dure.worker.live.attempts import install

install(load())
