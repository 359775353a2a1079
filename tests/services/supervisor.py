"""Runs one command so that nothing of it outlives the process that asked for it.

    python supervisor.py SIGNAL GRACE FOLDER COMMAND...

The asker holds our standard input. A line `stop` sends SIGNAL, waits GRACE seconds and kills the rest; `kill`
kills at once. When the asker dies, however it dies, its end of the pipe closes: the command has a second to leave
nothing behind, then everything is killed and FOLDER is removed. A forked child of the asker may still hold the
pipe; a changed parent tells the same.

We are the reaper of our descendants, so a daemon (epmd, say) that left its parent is still below us and still ends.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_bytes()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(b")")[2].split()[1])
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return sorted(found - {root})
        found |= more


def reap(child: int) -> int | None:
    """Collect whoever ended; the child's exit code if it was among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)


def kill_all(child: int) -> None:
    while pids := descendants(os.getpid()):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        reap(child)
        time.sleep(0.005)


def stop(child: int, how: int, grace: float) -> None:
    os.kill(child, how)
    end = time.monotonic() + grace
    while reap(child) is None and time.monotonic() < end:
        time.sleep(0.02)


def main() -> int:
    how, grace, folder, *command = sys.argv[1:]
    parent = os.getppid()
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, lambda *_: None)  # a handler, unlike SIG_IGN, is not passed on to the command
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # kept: a forgotten one reaps for itself
    child = process.pid
    while (code := reap(child)) is None:
        ready, _, _ = select.select([0], [], [], 0.25)
        word = os.read(0, 64) if ready else None
        if word == b"" or os.getppid() != parent:
            stop(child, int(how), 1.0)
            kill_all(child)
            shutil.rmtree(folder, ignore_errors=True)
            return 0
        if word == b"stop\n":
            stop(child, int(how), float(grace))
        if word:
            kill_all(child)
            return 0
    kill_all(child)
    return code


if __name__ == "__main__":
    sys.exit(main())
