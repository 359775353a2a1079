"""Faults of the embedded system's files."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

from chaos import isolation
from chaos.faults.fault import Fault, needs_files
from chaos.systems import System

# Longer than Dure waits for the ledger (10 s), and for the broker's file (30 s).
LOCKED_SECONDS = {"ledger.db": 12.0, "broker.db": 32.0}
DISK_MEGABYTES = 64
FULL_SECONDS = 4.0


async def _lock(system: System, turn: int) -> None:
    name = list(LOCKED_SECONDS)[turn % len(LOCKED_SECONDS)]
    with contextlib.closing(await asyncio.to_thread(_begin, system.home / name)) as connection:
        await asyncio.sleep(LOCKED_SECONDS[name])
        connection.execute("ROLLBACK")


def _begin(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=60, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


async def _fill(system: System, turn: int) -> None:
    ballast = system.home / "ballast"
    try:
        await asyncio.to_thread(_write_until_full, ballast)
        await asyncio.sleep(FULL_SECONDS)
    finally:
        ballast.unlink(missing_ok=True)


def _write_until_full(file: Path) -> None:
    """Down to the last byte: what a smaller piece still fits in is filled too."""
    with file.open("wb", buffering=0) as ballast:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while ballast.write(b"x" * size):
                    pass


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own at `folder`, small enough to be filled."""
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "chaos", str(folder)], check=True, capture_output=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def _needs_mount(system: type[System]) -> str | None:
    return needs_files(system) or isolation.missing()


_locked = ", ".join(f"{name} for {seconds:g} s" for name, seconds in LOCKED_SECONDS.items())

FAULTS = [
    Fault("sqlite-locked", f"another process holds a write lock: {_locked}, in turns", _lock, needs_files),
    Fault(
        "sqlite-full",
        f"the folder's disk (tmpfs, {DISK_MEGABYTES} MB) is filled for {FULL_SECONDS:g} s",
        _fill,
        _needs_mount,
        small_disk=True,
    ),
]
