"""Celery's own integration tests against several pools, in one table: `make celery-suite`.

Files run side by side, each against a worker of its own. What fails is run once more, alone: the suite expects that of
its runner, as many of its tests wait for so many seconds and no longer.

    make celery-suite ARGS="--worker asyncio --worker threads test_tasks.py -k retry"
"""

import argparse
import queue
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.celery_suite import report
from tests.celery_suite.suite import BUILD, KINDS, PARTS, Outcome, Part, fetch, run
from tests.services import RabbitMQ, Redis


class Runner:
    """One RabbitMQ for all, a Redis for each part that runs at a time: some tests look at all of its channels."""

    def __init__(self, stack: ExitStack, beside: int, more: Sequence[str]) -> None:
        self._folder = fetch()
        self._more = more
        self._rabbitmq = stack.enter_context(RabbitMQ())
        self._free: queue.SimpleQueue[Redis] = queue.SimpleQueue()
        for _ in range(beside):
            self._free.put(stack.enter_context(Redis()))
        self._threads = stack.enter_context(ThreadPoolExecutor(beside))

    def run(self, parts: Iterable[Part]) -> dict[str, list[Outcome]]:
        """The outcomes of each kind of worker."""
        wanted = list(parts)
        found: dict[str, list[Outcome]] = {}
        for part, outcomes in zip(wanted, self._threads.map(self._run, wanted), strict=True):
            found.setdefault(part.kind, []).extend(outcomes)
        return found

    def again(self, found: dict[str, list[Outcome]]) -> dict[str, list[Outcome]]:
        """The outcomes of those that failed, each run alone."""
        second: dict[str, list[Outcome]] = {}
        for kind, outcomes in found.items():
            for file in dict.fromkeys(outcome.file for outcome in outcomes if outcome.how == "failed"):
                only = tuple(o.name for o in outcomes if o.file == file and o.how == "failed")
                second.setdefault(kind, []).extend(self._run(Part(kind, file, only=only)))
        return second

    def _run(self, part: Part) -> list[Outcome]:
        redis, broker = self._free.get(), self._rabbitmq.vhost()
        try:
            outcomes = run(part, self._folder, broker, redis.database(), self._more)
        finally:
            self._rabbitmq.forget(broker)
            self._free.put(redis)
        print(f"{part.name:45} {report.counted(outcomes)}", flush=True)
        return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", action="append", choices=KINDS, help="all, if none is named")
    parser.add_argument("--beside", type=int, default=4, help="how many parts run at a time")
    parser.add_argument("--markdown", type=Path, default=BUILD.parent / "celery-suite.md", help="where the table goes")
    chosen, arguments = parser.parse_known_args()
    files = [argument for argument in arguments if argument in PARTS] or list(PARTS)
    more = [argument for argument in arguments if argument not in PARTS]
    kinds = chosen.worker or list(KINDS)
    with ExitStack() as stack:
        runner = Runner(stack, chosen.beside, more)
        first = runner.run(
            Part(kind, file, place, PARTS[file])
            for file in files
            for kind in kinds
            if file in KINDS[kind].files
            for place in range(1, PARTS[file] + 1)
        )
        text = report.markdown(first, runner.again(first))
    chosen.markdown.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
