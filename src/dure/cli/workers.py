"""`dure workers`: who is there, and what each does now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dure.cli import options, times
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl

if TYPE_CHECKING:
    from rich.text import Text

    from dure.ledger import Ledger
    from dure.node import Node, Running

_ALIVE_SECONDS = 30.0


def workers(
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Show each worker and the jobs that it runs now."""
    from dure.cli.session import ask_ledger

    found, running = ask_ledger(options.settings(broker_url, ledger_url, home), _read)
    now = time.time()
    if as_json:
        from dure.cli.terminal import print_answer
        from dure.view import node_view

        views = [node_view(node, running.get(node.hostname, ()), online=is_online(node, now)) for node in found]
        print_answer({"workers": views})
    else:
        _print(sorted(found, key=lambda node: not is_online(node, now)), running, now)


def is_online(node: Node, now: float) -> bool:
    return node.online and now - node.heartbeat_at < _ALIVE_SECONDS


async def _read(ledger: Ledger) -> tuple[list[Node], dict[str, list[Running]]]:
    return await ledger.workers(), await ledger.running()


def _print(found: Sequence[Node], running: dict[str, list[Running]], now: float) -> None:
    from dure.cli.show import table
    from dure.cli.terminal import err, out

    if not found:
        err().print("no worker has been seen; `dure up` or `dure worker` starts one")
        return
    listed = table("WORKER", "POOL", "QUEUES", "HEARTBEAT", "RUNS NOW")
    for column in listed.columns[:2]:
        column.no_wrap = True
    for node in found:
        pool = node.pool or "–"
        listed.add_row(
            _name(node, now),
            f"{pool} × {node.concurrency}" if node.concurrency else pool,
            ", ".join(node.queues) or "–",
            times.ago(node.heartbeat_at, now),
            _runs(running.get(node.hostname, ()), now) if is_online(node, now) else "",
        )
    out().print(listed)


def _name(node: Node, now: float) -> Text:
    from rich.text import Text

    online = is_online(node, now)
    return Text.assemble(("● " if online else "○ ", "green" if online else "red"), node.hostname)


def _runs(jobs: Sequence[Running], now: float) -> str:
    lines = [
        f"{job.task or job.id} ({times.span(max(0.0, now - job.started_at))})" if job.started_at else str(job.task)
        for job in jobs[:5]
    ]
    return "\n".join([*lines, f"and {len(jobs) - 5} more"] if len(jobs) > 5 else lines) or "–"
