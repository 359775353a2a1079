"""`make bench`: every measurement in one run, a table each on the screen and all figures in one JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from rich.console import Console

from benchmarks import embedded_broker, http_submit, latency, live, worker, workflows

PARTS = {
    "http": http_submit,
    "latency": latency,
    "broker": embedded_broker,
    "workflows": workflows,
    "live": live,
    "worker": worker,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; none means all")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="where the figures go")
    options = parser.parse_args()
    unknown = set(options.parts) - PARTS.keys()
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    console = Console()
    figures: dict[str, object] = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    }
    for name in options.parts or PARTS:
        figures[name] = PARTS[name].run()
        PARTS[name].show(console, figures[name])
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2))
    console.print(f"figures: {options.json}")


if __name__ == "__main__":
    main()
