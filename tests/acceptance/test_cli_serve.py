"""`dure serve` and `dure worker` by themselves."""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.cli_stack import Up, until


@pytest.fixture
def place(tmp_path: Path) -> Up:
    """Only its commands are used; nothing is up."""
    return Up(tmp_path)


@pytest.fixture
def gateway(place: Up) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(place.command("serve", "--port", "0"), stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def listening_url(gateway: subprocess.Popen[str]) -> str:
    assert gateway.stderr is not None
    for line in gateway.stderr:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found[0]
    raise AssertionError("it ended without listening")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_gateway_tells_its_real_port_and_ends_cleanly(gateway: subprocess.Popen[str], number: int) -> None:
    url = listening_url(gateway)
    until(lambda: httpx.get(f"{url}/readyz", timeout=30).status_code == 200)
    gateway.send_signal(number)
    assert gateway.wait(60) == 0


def test_the_gateway_tells_of_a_ledger_that_is_away(place: Up) -> None:
    ended = place.dure("serve", "--port", "0", "--ledger-url", "postgresql://u:secret@127.0.0.1:1/x")
    assert ended.returncode == 5
    assert "ledger is unavailable" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "secret" not in ended.stderr


def test_the_worker_lists_celerys_options(place: Up) -> None:
    told = place.dure("worker", "--celery-help")
    assert told.returncode == 0
    assert "--concurrency" in told.stdout


def test_an_option_that_celery_does_not_know_is_a_usage_error(place: Up) -> None:
    ended = place.dure("worker", "-A", "examples.quickstart.tasks:app", "--no-such-option")
    assert ended.returncode == 2
    assert "--no-such-option" in ended.stderr
