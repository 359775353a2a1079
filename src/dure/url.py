"""Connection URLs: what may be shown of one, and the embedded forms."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_SECRET_PARAMETERS = frozenset({"password", "passwd", "pwd", "secret", "token", "sslpassword", "auth"})


def redact(url: str) -> str:
    """The URL with every password in it replaced, fit for logs and answers."""
    try:
        parts = urlsplit(url)
        netloc = parts.netloc
        if "@" in netloc:
            user, _, host = netloc.rpartition("@")
            name = user.partition(":")[0]
            netloc = f"{name}:***@{host}" if ":" in user else f"{name}@{host}"
        query = [(k, "***" if k.lower() in _SECRET_PARAMETERS else v) for k, v in parse_qsl(parts.query)]
        return urlunsplit((parts.scheme, netloc, parts.path, urlencode(query, safe="*/:"), parts.fragment))
    except ValueError:
        return f"{url.partition(':')[0]}:***"


def scheme(url: str) -> str:
    """The first part of the scheme: `postgresql` of `postgresql+psycopg://…`."""
    return url.partition("://")[0].partition("+")[0].lower()


def file_url(kind: str, path: Path) -> str:
    """`dure:///…` or `sqlite:///…` for a file."""
    return f"{kind}:///{path.absolute().as_posix().lstrip('/')}"


def file_path(url: str) -> Path:
    """The absolute path in a URL that `file_url` made; `dure:///tmp/x.db` is `/tmp/x.db`."""
    return Path("/" + url.partition("://")[2].lstrip("/").partition("?")[0])
