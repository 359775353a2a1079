"""Celery's own integration tests against several pools, in one table: `make celery-suite`.

The tests are fetched from PyPI, in the version that is installed, and unpacked into build/; nothing of them is kept.

    make celery-suite ARGS="--worker asyncio --worker threads test_tasks.py test_canvas.py"
"""

import argparse
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import celery

from tests.services import RabbitMQ, Redis

CHECKOUT = Path(__file__).parents[2]
BUILD = CHECKOUT / "build" / "celery-suite"
FILES = ("test_tasks.py", "test_canvas.py", "test_group_chains.py", "test_inspect.py", "test_worker.py")
OURS = {"SUITE_POOL": "dure.worker.aio.asyncio:TaskPool"}
MINUTES = 30


@dataclass(frozen=True)
class Kind:
    options: str
    environment: dict[str, str]


KINDS = {
    "prefork": Kind("-P prefork -c 4", {}),
    "threads": Kind("-P threads -c 4", {}),
    "asyncio": Kind("-c 4", OURS),
    "asyncio-coroutines": Kind("-c 4", OURS | {"SUITE_COROUTINES": "1"}),
}


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


def run(name: str, kind: Kind, folder: Path, rabbitmq: RabbitMQ, redis: Redis, arguments: list[str]) -> dict[str, str]:
    """The outcome of each test."""
    report = BUILD / f"{name}.xml"
    report.unlink(missing_ok=True)
    broker, backend = rabbitmq.vhost(), redis.database()
    environment = os.environ | {
        "PYTHONPATH": f"{folder}:{CHECKOUT / 'src'}:{CHECKOUT}",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis.port),
        "SUITE_LOG": str(BUILD / f"{name}.log"),
        "SUITE_OPTIONS": kind.options,
        "TEST_BACKEND": backend,
        "TEST_BROKER": broker,
        **kind.environment,
    }
    files = [argument for argument in arguments if argument.endswith(".py")] or list(FILES)
    more = [argument for argument in arguments if not argument.endswith(".py")]
    (BUILD / "pytest.ini").write_text("[pytest]\npython_classes = test_*\n")
    plugins = ["-p", "celery.contrib.pytest", "-p", "tests.celery_suite.plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(BUILD / "pytest.ini"), "--rootdir", str(folder)]
    command += [*plugins, "-W", "ignore", "--tb=short", f"--junitxml={report}", *more]
    with (BUILD / f"{name}.txt").open("wb") as output:
        paths = [str(folder / "t" / "integration" / file) for file in files]
        subprocess.run(
            [*command, *paths],
            cwd=BUILD,
            env=environment,
            stdout=output,
            stderr=output,
            timeout=MINUTES * 60,
            check=False,
        )
    rabbitmq.forget(broker)
    return dict(_outcome(case) for case in ET.parse(report).iter("testcase"))


def _outcome(case: ET.Element) -> tuple[str, str]:
    test = f"{case.get('classname', '').rpartition('.integration.')[2]}.{case.get('name')}"
    for outcome in ("failure", "error", "skipped"):
        if case.find(outcome) is not None:
            return test, outcome
    return test, "passed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", action="append", choices=KINDS, help="all, if none is named")
    chosen, arguments = parser.parse_known_args()
    folder = fetch()
    rabbitmq, redis = RabbitMQ().start(), Redis().start()
    try:
        names = chosen.worker or list(KINDS)
        table = {name: run(name, KINDS[name], folder, rabbitmq, redis, arguments) for name in names}
    finally:
        rabbitmq.close()
        redis.close()
    for name, outcomes in table.items():
        passed = sum(outcome == "passed" for outcome in outcomes.values())
        print(f"{name:20} {passed} of {len(outcomes)} passed")
    differing = [test for test in table[names[0]] if len({table[name].get(test) for name in names}) > 1]
    for test in differing:
        print(test, *(f"{name}={table[name].get(test)}" for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
