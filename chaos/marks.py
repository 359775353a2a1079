"""What a run of the task leaves behind: a line when it begins, and one when it is about to return."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BEGIN = "begin"
END = "end"


@dataclass(frozen=True, slots=True)
class Mark:
    number: int
    pid: int
    at: float
    kind: str
    job_id: str

    def line(self) -> bytes:
        return f"{self.number} {self.pid} {self.at:.6f} {self.kind} {self.job_id}\n".encode()


def read(path: Path) -> list[Mark]:
    """Every mark, in the order in which they were left."""
    if not path.exists():
        return []
    marks = []
    for line in path.read_text().splitlines():
        number, pid, at, kind, job_id = line.split()
        marks.append(Mark(number=int(number), pid=int(pid), at=float(at), kind=kind, job_id=job_id))
    return marks
