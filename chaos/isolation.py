"""Namespaces of the run's own, so that what it does to network and mounts is seen by nobody else and ends with it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000

_isolated = False


def isolate() -> None:
    """Move this process, and with it all that it will start, into namespaces of its own; before any thread starts.

    Does nothing without the right to: faults that need it say so.
    """
    global _isolated  # noqa: PLW0603
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return
    if ctypes.CDLL(None).unshare(_CLONE_NEWNS | _CLONE_NEWNET) != 0:
        return
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    _isolated = True


def missing() -> str | None:
    """Why there are no namespaces, or None."""
    return None if _isolated else "needs root on Linux, with the right to make namespaces"
