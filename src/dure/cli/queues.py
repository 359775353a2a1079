"""`dure queues`: what waits where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dure.cli import options
from dure.cli.options import AsJson, BrokerUrl, Home, LedgerUrl

if TYPE_CHECKING:
    from dure.client import Dure
    from dure.node import QueueDepth


def queues(
    as_json: AsJson = False,
    broker_url: BrokerUrl = None,
    ledger_url: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Show each queue's depth and consumers."""
    from dure.cli.session import ask_dure

    found = ask_dure(options.settings(broker_url, ledger_url, home), _depths)
    if as_json:
        from dure.cli.terminal import print_answer

        print_answer({"queues": found})
    else:
        _print(found)


async def _depths(dure: Dure) -> Sequence[QueueDepth]:
    return await dure.link.queues(await dure.ledger.queues())


def _print(found: Sequence[QueueDepth]) -> None:
    from rich.text import Text

    from dure.cli.show import table
    from dure.cli.terminal import err, out

    if not found:
        err().print("no queue is known yet; the first worker or job names one")
        return
    listed = table("QUEUE", "WAITING", "CONSUMERS", "")
    for column in listed.columns[1:3]:
        column.justify = "right"
    for queue in found:
        if not queue.exists:
            listed.add_row(queue.name, "–", "–", Text("not on the broker", style="yellow"))
        else:
            note = "nobody works on it" if queue.messages and not queue.consumers else ""
            listed.add_row(queue.name, str(queue.messages), str(queue.consumers), Text(note, style="red"))
    out().print(listed)
