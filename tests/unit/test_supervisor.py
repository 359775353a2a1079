"""Nothing that the supervisor started outlives the process that asked for it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.service import SUPERVISOR

# A command with a daemon, as RabbitMQ has one: both write down who they are.
COMMAND = ["sh", "-c", "setsid sleep 300 & echo $! >daemon; echo $$ >leader.new; mv leader.new leader; exec sleep 300"]
ASKER = """
import subprocess, sys, time
subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True)
time.sleep(300)
"""


def supervised(folder: Path) -> list[str]:
    return [sys.executable, "-I", "-S", str(SUPERVISOR), str(int(signal.SIGTERM)), "5", str(folder), *COMMAND]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def started(folder: Path) -> list[Path]:
    """The processes of COMMAND, once they are there."""
    wait_until((folder / "leader").exists)
    return [Path("/proc", (folder / name).read_text().strip()) for name in ("leader", "daemon")]


def ended(processes: list[Path]) -> bool:
    return not any(process.exists() for process in processes)


@pytest.mark.parametrize("word", [b"stop\n", b"kill\n"])
def test_a_word_ends_the_command_and_its_daemon(tmp_path: Path, word: bytes) -> None:
    supervisor = subprocess.Popen(supervised(tmp_path), cwd=tmp_path, stdin=subprocess.PIPE)
    processes = started(tmp_path)
    supervisor.communicate(word, timeout=10)
    wait_until(lambda: ended(processes))
    assert tmp_path.exists()


def test_a_killed_asker_takes_everything_along(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    asker = subprocess.Popen([sys.executable, "-c", ASKER, *supervised(folder)], cwd=folder)
    processes = started(folder)
    asker.kill()
    asker.wait()
    wait_until(lambda: ended(processes) and not folder.exists())


def test_a_command_that_ends_tells_its_exit_code(tmp_path: Path) -> None:
    command = [*supervised(tmp_path)[: -len(COMMAND)], "sh", "-c", "exit 7"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as supervisor:
        assert supervisor.wait(timeout=10) == 7
