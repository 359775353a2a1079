"""The shop of the documentation's examples: its tasks in a folder of their own, and what the examples start there."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.docs.documents import CHECKOUT, Block, document
from tests.services.service import free_port

DEADLINE = 30.0
PAGES = ("README.md", "docs/http.md", "docs/workflows.md")  # the tasks of each are in one file
_END = "\x1e"
_GATEWAY = re.compile(r"\b(localhost|127\.0\.0\.1):8000\b")


@dataclass(frozen=True)
class Shop:
    """A folder with `tasks.py`, and a port that stands where the documentation writes 8000."""

    folder: Path
    port: int
    environment: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path, **environment: str) -> "Shop":
        port = free_port()
        tasks = [block.text for name in PAGES for block in named(name, "# tasks.py")]
        (folder / "tasks.py").write_text("\n\n".join(tasks))
        programs = folder / "bin"
        programs.mkdir()
        for name, command in (("dure", "-m dure"), ("python", "")):
            script = programs / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
            script.chmod(0o755)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DURE_", "CELERY_"))}
        clean.pop("COLUMNS", None)
        ours = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": f"{CHECKOUT / 'src'}:{folder}",
            "DURE_PORT": str(port),
            "NO_COLOR": "1",
        }
        return cls(folder, port, clean | ours | environment)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def here(self, text: str) -> str:
        """The text with this gateway's port for the documentation's."""
        return _GATEWAY.sub(lambda found: f"{found[1]}:{self.port}", text)

    def run(self, blocks: Sequence[Block]) -> list[str]:
        """Run shell blocks one after another in one shell; what each wrote to stdout and stderr."""
        parts = (f"{self.here(chr(10).join(block.lines))}\nprintf '{_END}%s{_END}' $?" for block in blocks)
        done = subprocess.run(
            ["bash", "-c", "exec 2>&1\n" + "\n".join(parts)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=6 * DEADLINE,
            check=False,
        )
        told = done.stdout.split(_END)[:-1]
        outputs, codes = told[0::2], told[1::2]
        assert len(codes) == len(blocks), done.stdout[-2000:] + done.stderr
        failed = [(block.place, out) for block, out, code in zip(blocks, outputs, codes, strict=True) if code != "0"]
        assert failed == []
        return outputs

    @contextmanager
    def started(self, line: str) -> Iterator[Callable[[], str]]:
        """A line of the documentation that stays in front, until the block is left; yields what it has written."""
        log = self.folder / f"{abs(hash(line))}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environment, stdout=output, stderr=output
            )
        try:
            yield lambda: log.read_text(errors="replace")  # what is being written may end within a character
        finally:
            process.terminate()
            process.wait(DEADLINE)


def named(name: str, beginning: str) -> list[Block]:
    """The blocks of a document that begin with a line such as `# tasks.py`."""
    return [block for block in document(name).blocks if block.text.startswith(beginning)]


def until(holds: Callable[[], bool], what: Callable[[], str]) -> None:
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, f"not within {DEADLINE:g} s: {what()}"
        time.sleep(0.05)
