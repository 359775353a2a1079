"""Fill the queue of one framework: `python -m benchmarks.workers.fill dramatiq '[["mark", ["first"], 1]]'`.

In a process of its own, as each framework keeps its broker for a process. The plan says task, arguments, how often.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from benchmarks.workers.message import publish


def main() -> None:
    framework, plan = sys.argv[1], json.loads(sys.argv[2])
    app: Any = importlib.import_module(f"benchmarks.workers.{framework}_app")
    app.declare()
    publish(os.environ["BENCH_BROKER"], (app.encode(task, *args) for task, args, times in plan for _ in range(times)))


if __name__ == "__main__":
    main()
