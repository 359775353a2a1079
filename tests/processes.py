"""Processes from the outside, while they start, end and exec."""

import psutil


def alive(pid: int) -> bool:
    """A zombie counts as gone."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children(pid: int) -> dict[int, list[str]]:
    """The command line of each, by its number; those that end meanwhile are left out."""
    found = {}
    for child in psutil.Process(pid).children():
        try:
            found[child.pid] = child.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found
