"""What makes one request of two: an idempotency key, and the fingerprint of what it was used for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import msgspec

from dure.client.flows import FlowDraft
from dure.client.submission import Submission
from dure.errors import FieldError, InvalidSubmission
from dure.ledger import Idempotency

_LONGEST = 255


def idempotency(key: str | None, asked: Sequence[Submission] | FlowDraft, ttl: float) -> Idempotency | None:
    """Raises InvalidSubmission for what can be no key. `ttl` is for how many seconds it is kept."""
    if key is None:
        return None
    if not 0 < len(key) <= _LONGEST or not key.isprintable():
        message = f"an idempotency key is 1 to {_LONGEST} printable characters"
        raise InvalidSubmission([FieldError(("idempotency_key",), message)])
    return Idempotency(key=key, fingerprint=_fingerprint(asked), expires_at=time.time() + ttl)


def _fingerprint(asked: Sequence[Submission] | FlowDraft) -> str:
    told = asked.spec if isinstance(asked, FlowDraft) else [(s.task, s.args, s.kwargs, s.options) for s in asked]
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic", enc_hook=repr)).hexdigest()
