"""`make chaos`: every fault on every system, a line for each as it ends, and a table of all."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from rich.console import Console

from chaos import cell, isolation, report
from chaos.cell import Plan
from chaos.faults import FAULTS
from chaos.systems import SYSTEMS, NotReady
from tests.services import ServiceFailed

_plan = Plan()


def main() -> int:
    options = _parser().parse_args()
    console = Console(highlight=False, soft_wrap=True)
    if options.list:
        _list(console)
        return 0
    isolation.isolate()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleaned up after, like Ctrl-C
    cells: list[report.Cell] = []
    try:
        heading = report.heading(sys.argv[1:], ["RabbitMQ", "PostgreSQL", "Redis"])
        for fault in options.fault or FAULTS:
            for system in options.system or SYSTEMS:
                cells.append(_run(system, fault, options))
                report.tell(console, cells[-1])
                _write(cells, heading, options)  # as far as it got: a run takes long
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    console.print(report.table(cells))
    return 1 if any(_is_bad(each) for each in cells) else 0


def _run(system: str, fault: str, options: argparse.Namespace) -> report.Cell:
    kind, found = SYSTEMS[system], FAULTS[fault]
    if why := found.why_not(kind) or next(filter(None, (server.missing() for server in kind.kinds.values())), None):
        return report.Skipped(system=system, fault=fault, why=why)
    plan = Plan(jobs=options.jobs, rate=options.rate, patience=options.patience, keep=options.keep)
    try:
        return asyncio.run(cell.run(kind, [found], plan))
    except (NotReady, ServiceFailed, OSError, ExceptionGroup) as exc:
        causes = exc.exceptions if isinstance(exc, ExceptionGroup) else [exc]
        return report.Failed(system=system, fault=fault, why="; ".join(map(repr, causes)))


def _is_bad(each: report.Cell) -> bool:
    """Whether Dure did not keep its promise, or the harness did not work."""
    if isinstance(each, cell.Outcome):
        return each.system.startswith("dure") and each.tally.lost + each.tally.wrong > 0
    return isinstance(each, report.Failed)


def _write(cells: list[report.Cell], heading: dict[str, object], options: argparse.Namespace) -> None:
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report.as_json(cells, heading), indent=2) + "\n")
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        does = {name: fault.does for name, fault in FAULTS.items()}
        summaries = {name: system.summary for name, system in SYSTEMS.items()}
        options.markdown.write_text(report.as_markdown(cells, heading, does, summaries))


def _list(console: Console) -> None:
    console.print("faults")
    for name, fault in FAULTS.items():
        console.print(f"  {name:<17} {fault.does}")
    console.print("systems")
    for name, system in SYSTEMS.items():
        console.print(f"  {name:<17} {system.summary}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=_plan.jobs, help="jobs of each cell (%(default)s)")
    parser.add_argument("--rate", type=float, default=_plan.rate, help="most jobs a second (%(default)g)")
    parser.add_argument(
        "--fault", nargs="+", action="extend", choices=FAULTS, metavar="NAME", help="only these; repeatable"
    )
    parser.add_argument(
        "--system", nargs="+", action="extend", choices=SYSTEMS, metavar="NAME", help="only these; repeatable"
    )
    parser.add_argument("--list", action="store_true", help="list faults and systems")
    parser.add_argument(
        "--patience",
        type=float,
        default=_plan.patience,
        metavar="SECONDS",
        help="how long nothing may move before what is open counts as such (%(default)g)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table for the documentation there")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep each cell's logs and marks there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
