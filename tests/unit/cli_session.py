"""A place for one command line: a folder of its own, a wide terminal, and no logging left changed behind it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("DURE_PORT", "0")  # somebody may be running Dure on this machine
    yield tmp_path
    structlog.reset_defaults()
    logging.disable(logging.NOTSET)
