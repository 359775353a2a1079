"""The embedded broker: Celery's broker and result store in SQLite files, with no server.

Importing this package teaches kombu the URL `dure:///abs/path/broker.db`; `dure.broker.store` alone needs no kombu.
"""

from __future__ import annotations

import contextlib

_TRANSPORT = "dure.broker.transport:Transport"


def register_transport() -> None:
    """Teach kombu the `dure` scheme; done on import wherever kombu is installed."""
    from kombu.transport import TRANSPORT_ALIASES

    TRANSPORT_ALIASES["dure"] = _TRANSPORT


with contextlib.suppress(ImportError):
    register_transport()
