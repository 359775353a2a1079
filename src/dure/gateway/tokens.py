"""Tokens for browsers: short-lived, signed, and good for one job, one workflow or one task.

A server that has a key asks for a token and hands it to its page. The gateway keeps nothing about it: what a token
opens stands in it, signed (JWT, HS256). It can't be taken back, only run out.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import jwt
from msgspec import Struct
from starlette.types import Scope

from dure.errors import DureError
from dure.settings import Settings

_ALGORITHM = "HS256"
_ISSUER = "dure"
_FILE = "token.secret"
_CLAIMS = ["iat", "exp", "iss", "kind", "id", "allow"]


class Right(StrEnum):
    WATCH = "watch"
    SUBMIT = "submit"
    CANCEL = "cancel"


class Kind(StrEnum):
    """What a token can be for."""

    JOB = "job"
    WORKFLOW = "workflow"
    TASK = "task"


class InvalidToken(DureError):
    """Not signed by us, or its time is over. It is not in the message, nor is anything of it."""


class NotOpened(DureError):
    """The token is good, and not for this."""

    def __init__(self) -> None:
        super().__init__("it is good for one job, workflow or task, and for what it allows there")


class NoTokenSecret(DureError):
    """There is nothing to sign with: the secret was not set, and could not be kept."""


class Grant(Struct, frozen=True, kw_only=True):
    """What a token opens. `lifetime` is for how long it was made, in seconds."""

    kind: Kind
    id: str
    allow: frozenset[Right]
    expires_at: float
    lifetime: float

    def allows(self, right: Right, kind: Kind, name: str, now: float | None = None) -> bool:
        return (
            self.kind is kind
            and self.id == name
            and right in self.allow
            and (time.time() if now is None else now) < self.expires_at
        )


class Minted(Struct, frozen=True):
    token: str
    expires_at: float


class Tokens:
    """Makes and reads tokens. The secret is the setting's, or one that all gateways of one `home` share."""

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.token_secret.get_secret_value() if settings.token_secret else None
        self._path = settings.home / _FILE

    def mint(self, kind: Kind, name: str, allow: Iterable[Right], lifetime: float) -> Minted:
        """Raises NoTokenSecret."""
        now = int(time.time())
        claims = {
            "iss": _ISSUER,
            "iat": now,
            "exp": now + int(lifetime),
            "kind": kind.value,
            "id": name,
            "allow": sorted(allow),
        }
        return Minted(jwt.encode(claims, self._make_secret(), algorithm=_ALGORITHM), float(now + int(lifetime)))

    def mint_for_job(self, grant: Grant, job_id: str) -> Minted:
        """For who submitted the job with a task's token: it may be watched, and cancelled if the task's jobs may."""
        return self.mint(Kind.JOB, job_id, {Right.WATCH, *(grant.allow & {Right.CANCEL})}, grant.lifetime)

    def read(self, token: str) -> Grant:
        """Raises InvalidToken."""
        secret = self._secret or self._kept()
        if secret is None:
            raise InvalidToken("no token was ever made here")
        try:
            claims: dict[str, Any] = jwt.decode(
                token, secret, algorithms=[_ALGORITHM], issuer=_ISSUER, options={"require": _CLAIMS}
            )
            return Grant(
                kind=Kind(claims["kind"]),
                id=str(claims["id"]),
                allow=frozenset(map(Right, claims["allow"])),
                expires_at=float(claims["exp"]),
                lifetime=float(claims["exp"] - claims["iat"]),
            )
        except jwt.ExpiredSignatureError:
            raise InvalidToken("the token's time is over") from None
        except (jwt.InvalidTokenError, ValueError, TypeError):
            raise InvalidToken("the token is not one of this gateway's") from None

    def _make_secret(self) -> str:
        if self._secret is None:
            try:
                self._secret = self._kept() or _keep(self._path)
            except OSError as exc:
                raise NoTokenSecret(f"{self._path} cannot be written: {exc.strerror}") from None
        return self._secret

    def _kept(self) -> str | None:
        with suppress(OSError):
            self._secret = self._path.read_text().strip() or None
        return self._secret


def tokens_of(scope: Scope, settings: Settings) -> Tokens:
    """The application's; one that only mounts the routes gets its own when the first is asked for."""
    state = scope["app"].state
    if not hasattr(state, "tokens"):
        state.tokens = Tokens(settings)
    found: Tokens = state.tokens
    return found


def _keep(path: Path) -> str:
    """Of several gateways that start at once, one makes it. A file appears whole, and only its owner may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
    return path.read_text().strip()
