from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.acceptance.cli_stack import Up
from tests.browser.page import CLIENT, served
from tests.services.chromium import chromium, need

KEY = "k-of-the-server-only-0001"


@pytest.fixture(scope="session")
def built() -> Path:
    found = CLIENT / "dist" / "index.js"
    newest = max(path.stat().st_mtime for path in (CLIENT / "src").iterdir())
    need(found.exists() and found.stat().st_mtime >= newest, "the JavaScript client is not built: run `make js`")
    return found


@pytest.fixture(scope="module")
def origin(built: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    with served() as found:
        yield found


@pytest.fixture(scope="module")
def browser(built: Path) -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser, origin: tuple[str, dict[str, bytes]]) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(origin[0])
        yield page


def _up(folder: Path, origin: str, **environment: str) -> Up:
    return Up(folder, "-A", "tests.browser.tasks:app", environment={"DURE_CORS_ORIGINS": origin} | environment)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, origin: tuple[str, dict[str, bytes]]) -> Iterator[Up]:
    """Without keys, on this machine, for pages of that origin."""
    with _up(tmp_path_factory.mktemp("up"), origin[0]) as stack:
        yield stack


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, origin: tuple[str, dict[str, bytes]]) -> Iterator[Up]:
    """One that asks for a key or a token."""
    with _up(tmp_path_factory.mktemp("guarded"), origin[0], DURE_API_KEYS=KEY) as stack:
        yield stack
