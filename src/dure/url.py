"""Connection URLs: what may be shown of one, and the embedded forms."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

_SECRET_PARAMETERS = frozenset({"password", "passwd", "pwd", "secret", "token", "sslpassword", "auth"})


def redact(url: str) -> str:
    """The URL with every password in it replaced, fit for logs and answers."""
    kind, _, rest = url.partition("://")
    try:
        parts = urlsplit(f"//{rest}")
        _ = parts.port  # raises where it is none
    except ValueError:
        return _hidden(kind)
    if "@" in parts.path and ":" in parts.netloc and "@" not in parts.netloc:
        return _hidden(kind)  # a password with a slash that was not quoted
    user, at, place = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    shown = [(k, "***" if k.lower() in _SECRET_PARAMETERS else v) for k, v in parse_qsl(parts.query)]
    query = f"?{urlencode(shown, safe='*/:')}" if shown else ""
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    # Not `urlunsplit`: what it makes of a path that begins with two slashes differs between versions of Python.
    return f"{kind}://{name}{':***' if colon else ''}{at}{place}{parts.path}{query}{fragment}"


def _hidden(kind: str) -> str:
    return f"{kind.partition(':')[0]}:***"


def scheme(url: str) -> str:
    """The first part of the scheme: `postgresql` of `postgresql+psycopg://…`; empty where there is none."""
    kind, separator, _ = url.partition("://")
    return kind.partition("+")[0].lower() if separator else ""


def file_url(kind: str, path: Path) -> str:
    """`dure:///…`, or `sqlite:////…` with the fourth slash by which SQLAlchemy tells an absolute path."""
    return f"{kind}://{'/' if kind == 'sqlite' else ''}{path.absolute().as_posix()}"


def file_path(url: str) -> Path:
    """The absolute path in a file's URL: `dure:///tmp/x.db` and `sqlite:////tmp/x.db` are `/tmp/x.db`.

    `sqlite:///x.db` is `x.db` in the current folder, as everywhere with SQLAlchemy.
    """
    path = url.partition("://")[2].partition("?")[0]
    return Path(path[1:] if scheme(url) == "sqlite" else path).absolute()
