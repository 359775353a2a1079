"""The systems under test, by name."""

from chaos.systems.dure import Embedded, Production
from chaos.systems.plain import Plain, PlainAcksLate
from chaos.systems.system import Answer, NotReady, System

SYSTEMS: dict[str, type[System]] = {kind.name: kind for kind in (Production, Embedded, Plain, PlainAcksLate)}

__all__ = ["SYSTEMS", "Answer", "NotReady", "System"]
