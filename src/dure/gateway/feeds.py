"""The feeds that readers hold open at this gateway: how many, how they end, and what is read of each.

A gateway that leaves must end them itself: the server in front would wait for them, for a feed need not end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from prometheus_client import Counter, Gauge
from starlette.types import Scope

from dure.client import Dure
from dure.errors import InvalidCursor
from dure.feed import FeedEvent
from dure.gateway.problems import BodyProblem
from dure.ledger import JobFilter

CUT = "dure.cut"  # among the scope's extensions: ends the connection without waiting for its reader

_OPEN = Gauge("dure_feed_readers", "Readers that this process serves a feed, by what carries it.", ["over"])
_CUT_OFF = Counter("dure_feed_readers_cut_off", "Readers cut off for taking nothing, by what carried it.", ["over"])


class Feed(Protocol):
    """What `dure.watching` opens. Being cancelled while it waits loses nothing."""

    async def batch(self) -> list[FeedEvent]:
        """All there is, at least one event; none when the feed is over."""
        ...

    async def close(self) -> None: ...


class EndingFeed(Feed, Protocol):
    @property
    def over(self) -> bool:
        """Its reader has all, up to the result."""
        ...


class OpenFeeds:
    """`close` asks each reader's connection to leave, at once; who comes later is told so too."""

    def __init__(self) -> None:
        self.closing = False
        self._leaving: set[Callable[[], None]] = set()

    @contextmanager
    def reading(self, over: str, leave: Callable[[], None] | None = None) -> Iterator[None]:
        if leave is not None:
            self._leaving.add(leave)
        _OPEN.labels(over).inc()
        try:
            yield
        finally:
            _OPEN.labels(over).dec()
            if leave is not None:
                self._leaving.remove(leave)

    def close(self) -> None:
        self.closing = True
        for leave in tuple(self._leaving):
            leave()


def feeds_of(scope: Scope) -> OpenFeeds:
    """The application's; one that only mounts the routes gets its own with the first reader."""
    state = scope["app"].state
    if not hasattr(state, "feeds"):
        state.feeds = OpenFeeds()
    found: OpenFeeds = state.feeds
    return found


def cut(scope: Scope, over: str | None) -> bool:
    """Whether the server in front can. `over` counts it as a reader that is too slow."""
    if over is not None:
        _CUT_OFF.labels(over).inc()
    end = scope.get("extensions", {}).get(CUT)
    if end is not None:
        end()
    return end is not None


async def open_job(dure: Dure, job_id: str, after: str | None) -> EndingFeed:
    """Raises UnknownJob, or BodyProblem for a cursor of somebody else's; so do the other two."""
    try:
        return await dure.watching.open_job(job_id, after)
    except InvalidCursor as exc:
        raise _no_cursor(exc) from None


async def open_workflow(dure: Dure, workflow_id: str, after: str | None) -> EndingFeed:
    try:
        return await dure.watching.open_workflow(workflow_id, after)
    except InvalidCursor as exc:
        raise _no_cursor(exc) from None


async def open_filter(dure: Dure, wanted: JobFilter, after: str | None) -> Feed:
    try:
        return await dure.watching.open_filter(wanted, after)
    except InvalidCursor as exc:
        raise _no_cursor(exc) from None


def _no_cursor(exc: InvalidCursor) -> BodyProblem:
    about = "it is not the id of an event of this feed; leave it out to begin at the beginning"
    return BodyProblem(400, "invalid-event-id", "The feed cannot go on from there", f"{exc.cursor!r:.80}: {about}")
