"""Celery's integration tests, fetched from PyPI in the version that is installed, and one part of them run.

The tests are unpacked into build/; nothing of them is kept. They run as they are, in an ordinary pytest process; what
differs is the worker, which `plugin` starts as an operator would.
"""

import json
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import celery

CHECKOUT = Path(__file__).parents[2]
BUILD = CHECKOUT / "build" / "celery-suite"
PARTS = {  # and into how many parts it is cut, for most of its time is spent waiting
    "test_canvas.py": 3,
    "test_tasks.py": 2,
    "test_group_chains.py": 1,
    "test_inspect.py": 1,
    "test_worker.py": 1,
    "test_redis_backend.py": 1,
    "test_beat.py": 1,
    "test_serialization.py": 1,
}
OURS = {"SUITE_POOL": "dure.worker.aio.asyncio:TaskPool"}
QUORUM = {"task_default_queue_type": "quorum", "broker_transport_options": {"confirm_publish": True}}
MINUTES = 30
_ANY_QUEUE = ("test_canvas.py", "test_tasks.py", "test_group_chains.py")  # others make a classic queue themselves


@dataclass(frozen=True)
class Kind:
    """A worker that the suite is run against."""

    title: str
    options: str
    environment: dict[str, str] = field(default_factory=dict)
    configuration: dict[str, object] = field(default_factory=dict)
    stock: str = "threads"  # what stock threads pass, it shall pass
    files: tuple[str, ...] = tuple(PARTS)


KINDS = {
    "prefork": Kind("prefork", "-P prefork -c 4"),
    "threads": Kind("threads", "-P threads -c 4"),
    "asyncio": Kind("asyncio", "-c 4", OURS),
    "coroutines": Kind("asyncio, each task `async def`", "-c 4", OURS | {"SUITE_COROUTINES": "1"}),
    "threads-quorum": Kind("threads, quorum queues", "-P threads -c 4", {}, QUORUM, files=_ANY_QUEUE),
    "asyncio-quorum": Kind("asyncio, quorum queues", "-c 4", OURS, QUORUM, "threads-quorum", _ANY_QUEUE),
}


@dataclass(frozen=True)
class Outcome:
    name: str
    file: str
    how: str  # passed, failed or skipped
    reason: str = ""


@dataclass(frozen=True)
class Part:
    """Tests that run one after the other against one worker."""

    kind: str
    file: str
    place: int = 1
    of: int = 1
    only: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        shard = f"-{self.place}of{self.of}" if self.of > 1 else ""
        return f"{self.kind}-{self.file.removesuffix('.py')}{shard}" + ("-again" if self.only else "")


def fetch() -> Path:
    """The folder that has the suite's `t`."""
    version = celery.__version__
    if not (BUILD / f"celery-{version}").exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "celery"]
        subprocess.run([*download, f"celery=={version}", "--dest", str(BUILD)], check=True)
        with tarfile.open(next(BUILD.glob(f"celery-{version}.tar.gz"))) as archive:
            wanted = [member for member in archive.getmembers() if f"celery-{version}/t/" in member.name]
            archive.extractall(BUILD, members=wanted, filter="data")
    return BUILD / f"celery-{version}"


def run(part: Part, folder: Path, broker: str, backend: str, more: Sequence[str]) -> list[Outcome]:
    """Also leaves the worker's log, pytest's output and its report in build/, under the part's name."""
    kind, report = KINDS[part.kind], BUILD / f"{part.name}.xml"
    report.unlink(missing_ok=True)
    root = BUILD / f"configured-{part.kind}"
    root.mkdir(exist_ok=True)
    (root / "integration-tests-config.json").write_text(json.dumps(kind.configuration))
    (root / "pytest.ini").write_text("[pytest]\npython_classes = test_*\n")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{folder}:{CHECKOUT / 'src'}:{CHECKOUT}",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": backend.rpartition(":")[2].partition("/")[0],
        "SUITE_CONFIGURATION": json.dumps(kind.configuration),
        "SUITE_LOG": str(BUILD / f"{part.name}.log"),
        "SUITE_ONLY": json.dumps(part.only),
        "SUITE_OPTIONS": kind.options,
        "SUITE_SHARD": f"{part.place}/{part.of}",
        "TEST_BACKEND": backend,
        "TEST_BROKER": broker,
        **kind.environment,
    }
    plugins = ["-p", "celery.contrib.pytest", "-p", "tests.celery_suite.plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(root / "pytest.ini"), "--rootdir", str(root), *plugins]
    command += ["-W", "ignore", "--tb=short", f"--junitxml={report}", *more]
    with (BUILD / f"{part.name}.txt").open("wb") as output:
        subprocess.run(
            [*command, str(folder / "t" / "integration" / part.file)],
            cwd=BUILD,
            env=environment,
            stdout=output,
            stderr=output,
            timeout=MINUTES * 60,
            check=False,
        )
    return read(report, part.file)


def read(report: Path, file: str) -> list[Outcome]:
    if not report.exists():
        return [Outcome("(all)", file, "failed", f"pytest ended without a report, see {report.stem}.txt")]
    outcomes = {}
    for case in ET.parse(report).iter("testcase"):
        found = case.get("classname", "").rpartition(f"{file.removesuffix('.py')}")[2].strip(".")
        name = f"{found}.{case.get('name')}".lstrip(".")
        how, reason = "passed", ""
        for tag, outcome in (("skipped", "skipped"), ("failure", "failed"), ("error", "failed")):
            if (told := case.find(tag)) is not None:
                how, reason = outcome, (told.get("message") or "").strip().partition("\n")[0]
        if name not in outcomes or how == "failed":  # a subtest counts with its test
            outcomes[name] = Outcome(name, file, how, reason)
    return list(outcomes.values())
