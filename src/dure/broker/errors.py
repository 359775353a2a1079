"""What can go wrong in the embedded broker.

LinkError
├── LinkDown
│   └── BrokerUnavailable   the file stayed locked, is full, read-only or damaged; nothing was half done
└── BrokerError
    ├── QueueNotFound       a queue that must exist does not
    ├── QueueLocked         an exclusive queue of another session that is alive
    └── ExchangeMismatch    the exchange exists with another type
"""

from __future__ import annotations

from dure.errors import LinkDown, LinkError


class BrokerUnavailable(LinkDown):
    def __init__(self, path: str, detail: str) -> None:
        self.path = path
        super().__init__(f"dure://{path}", detail)


class BrokerError(LinkError):
    """The root of what a caller asked wrongly of the embedded broker."""


class QueueNotFound(BrokerError):
    def __init__(self, queue: str) -> None:
        self.queue = queue
        super().__init__(f"NOT_FOUND - no queue {queue!r}")


class QueueLocked(BrokerError):
    def __init__(self, queue: str) -> None:
        self.queue = queue
        super().__init__(f"RESOURCE_LOCKED - queue {queue!r} is exclusive to another connection")


class ExchangeMismatch(BrokerError):
    def __init__(self, exchange: str, existing: str, wanted: str) -> None:
        self.exchange = exchange
        self.existing = existing
        self.wanted = wanted
        super().__init__(f"PRECONDITION_FAILED - exchange {exchange!r} is {existing!r}, not {wanted!r}")
