"""The gateway's socket, bound before anything is loaded: a port in use is told at once, and port 0 gets its number."""

from __future__ import annotations

import errno
import socket

from dure.errors import ConfigurationError, Problem

_UNSENT_BYTES = 262_144


def listen(host: str, port: int) -> socket.socket:
    """Raises ConfigurationError where the address cannot be bound."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Each connection inherits it: what a slow reader has not taken waits in the gateway, which counts it, and
            # not by the megabyte in the kernel.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        listener.bind(address)
        listener.listen(2048)
    except OSError as exc:
        reason = "is in use" if exc.errno == errno.EADDRINUSE else f"cannot be listened on: {exc.strerror}"
        raise ConfigurationError(
            [Problem("port", f"{host}:{port} {reason}", "choose another --port, or 0 for a free one")]
        ) from None
    return listener


def url(listener: socket.socket) -> str:
    """How to call it from this machine; a wildcard address is shown as the loopback one."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
