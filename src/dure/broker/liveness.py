"""Who is alive, told by the operating system rather than by the clock.

Each session holds a POSIX lock on a file of its own, in the folder `<broker file>-sessions`, from before its row
can be seen until after its row is gone. The kernel frees the lock when the process ends, however it ends; so a lock
that can be taken belongs to the dead, and what it held goes back. A process that is stopped, swapped out or busy
for an hour still holds its lock, and is never robbed.

What must hold for this to be right:
- A POSIX lock does not pass to a forked child, unlike one made by flock(2): a pool child cannot keep its dead
  parent's session alive.
- Closing any descriptor of a file frees the process's locks on it, so no process may open a lock file of its own
  sessions again: those are known by `_own` and are alive without asking.
- Only one of several checkers takes a dead session's lock; it removes the row, then the file.
- All processes must be on one machine, or on a file system with POSIX locks that work. SQLite needs the same.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_own: set[Path] = set()


class SessionLock:
    """The lock of one session of this process."""

    def __init__(self, database: Path) -> None:
        folder = session_folder(database)
        folder.mkdir(exist_ok=True)
        self.name = uuid4().hex
        self._path = folder / self.name
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        _own.add(self._path)
        fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._fd)
        _own.discard(self._path)


@contextmanager
def taken_from_the_dead(database: Path, name: str) -> Iterator[bool]:
    """True inside the block when the session's process is gone; nobody else is told so meanwhile."""
    path = session_folder(database) / name
    if path in _own:
        yield False
        return
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    except OSError:  # not ours to judge
        yield False
        return
    try:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
        path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def session_folder(database: Path) -> Path:
    return database.with_name(f"{database.name}-sessions")


# A forked child holds none of its parent's locks, so it must ask about its parent's sessions like anyone else.
os.register_at_fork(after_in_child=_own.clear)
