"""The faults, by name."""

from chaos.faults import files, lines, processes, servers
from chaos.faults.fault import Fault

FAULTS: dict[str, Fault] = {
    fault.name: fault for fault in (*processes.FAULTS, *servers.FAULTS, *files.FAULTS, *lines.FAULTS)
}

__all__ = ["FAULTS", "Fault"]
