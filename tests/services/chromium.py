"""Chromium without a window, as Debian packages it, driven by Playwright."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.services.service import find


def _program() -> str | None:
    return find("chromium", "chromium-browser", "google-chrome")


def need(held: object, what: str) -> None:
    """Without it the test is skipped, or fails where nothing may be skipped."""
    if not held:
        if os.environ.get("CI") == "true":
            pytest.fail(what, pytrace=False)
        pytest.skip(what)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Not for longer than a module: while it is open, no event loop can run in this thread."""
    program = _program()
    need(program, "chromium is not installed: run `scripts/services chromium`")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=program) as browser:
        yield browser
