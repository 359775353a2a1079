"""One WebSocket: several things asked at once, each answered by its `ref`.

The request's own task reads. Each message is done by a task of its own, so a submission does not wait for the one
before; of these only so many run at once, and further ones are not read meanwhile. A watch keeps its task until its
feed is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from dure.client import Dure
from dure.client.once import idempotency
from dure.errors import DureError, FieldError, InvalidSubmission
from dure.gateway.access import grant_of
from dure.gateway.feeds import Feed, OpenFeeds, open_job, open_workflow
from dure.gateway.problems import BodyProblem, answer
from dure.gateway.submit import as_accepted, envelope, require_plain, token_for
from dure.gateway.tokens import Grant, Kind, NotOpened, Right, Tokens
from dure.gateway.ws.close import Close, chosen
from dure.gateway.ws.messages import (
    Accepted,
    Asked,
    Cancel,
    Cancelled,
    Done,
    Ping,
    Pong,
    Ref,
    Submit,
    Unwatch,
    Watch,
    error_of,
    event_of,
    parsed,
    read,
    ref_of,
)
from dure.gateway.ws.outbox import Outbox
from dure.view import job_view, workflow_view

Doing = Callable[[], Awaitable[Feed | None]]

_OVER = "websocket"
_AT_ONCE = 64
_MOST_WATCHES = 1000


class Connection:
    def __init__(self, websocket: WebSocket, dure: Dure, tokens: Tokens, open_feeds: OpenFeeds) -> None:
        self._websocket = websocket
        self._dure = dure
        self._tokens = tokens
        self._open_feeds = open_feeds
        self._grant = grant_of(websocket.scope)
        self._outbox = Outbox(websocket, dure.settings.feed_timeout)
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._watches: dict[Ref, asyncio.Task[None]] = {}
        self._own: set[str] = set()  # jobs that were submitted here with a token

    async def run(self) -> None:
        await self._websocket.accept(chosen(self._websocket))
        if self._open_feeds.closing:
            await self._websocket.close(Close.RESTART)
            return
        try:
            with suppress(WebSocketDisconnect):
                while True:
                    await self._take(await self._next())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _next(self) -> str:
        """Raises WebSocketDisconnect."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        text = message.get("text")
        return text if text is not None else bytes(message["bytes"]).decode("utf-8", "replace")

    async def _take(self, text: str) -> None:
        value: Any = None
        try:
            if len(text) > self._dure.settings.body_limit:
                raise BodyProblem(
                    413, "too-large", "The message is too large", "DURE_BODY_LIMIT is the limit, in bytes"
                )
            value = parsed(text)
            asked = read(value)
            match asked:
                case Ping():
                    await self._outbox.send(Pong(asked.ref) if asked.ref else Pong())
                case Unwatch():
                    await self._unwatch(asked.ref)
                case Watch():
                    await self._start(asked.ref, partial(self._watch, asked), watches=True)
                case Submit():
                    await self._start(asked.ref, partial(self._submit, asked), watches=asked.watch)
                case Cancel():
                    await self._start(asked.ref, partial(self._cancel, asked))
        except DureError as exc:
            await self._outbox.send(error_of(ref_of(value), answer(exc)))

    async def _start(self, ref: Ref, doing: Doing, *, watches: bool = False) -> None:
        if watches and ref in self._watches:
            raise InvalidSubmission([FieldError(("ref",), "something is watched by it already")])
        if watches and len(self._watches) >= _MOST_WATCHES:
            about = f"a connection watches at most {_MOST_WATCHES} jobs and workflows at once; open another one"
            raise BodyProblem(429, "too-many-watches", "Too many are watched here", about)
        await self._room.acquire()
        task = asyncio.create_task(self._do(ref, doing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if watches:
            self._watches[ref] = task
            task.add_done_callback(lambda _: self._forget(ref, task))

    def _forget(self, ref: Ref, task: asyncio.Task[None]) -> None:
        if self._watches.get(ref) is task:
            del self._watches[ref]

    async def _do(self, ref: Ref, doing: Doing) -> None:
        """What is asked, then, without holding up others, the feed that it opened."""
        try:
            try:
                try:
                    feed = await doing()
                finally:
                    self._room.release()
                if feed is not None:
                    await self._copy(ref, feed)
            except WebSocketDisconnect:
                raise
            except Exception as exc:
                await self._outbox.send(error_of(ref, answer(exc)))
        except WebSocketDisconnect:
            return  # who reads the connection is told too

    async def _submit(self, asked: Submit) -> Feed | None:
        submission = envelope(asked.task, asked.rest, force=asked.force)
        grant = self._grant_for(asked)
        if grant is not None:
            _require(grant.allows(Right.SUBMIT, Kind.TASK, asked.task))
            require_plain(submission)
        draft = await self._dure.draft(submission)
        key = idempotency(asked.idempotency_key, [submission], self._dure.settings.idempotency_ttl)
        receipt = await self._dure.accept([draft], key)
        job = receipt.jobs[0]
        view = job_view(job if key is None else as_accepted(job))
        if grant is not None:
            self._own.add(job.id)
            view |= token_for(grant, job.id, self._tokens)
        await self._outbox.send(Accepted(asked.ref, view))
        return await open_job(self._dure, job.id, None) if asked.watch else None

    async def _watch(self, asked: Watch) -> Feed:
        kind, name = asked.target
        self._require(Right.WATCH, kind, name, asked)
        opened = open_job if kind is Kind.JOB else open_workflow
        return await opened(self._dure, name, asked.after)

    async def _cancel(self, asked: Cancel) -> None:
        kind, name = asked.target
        self._require(Right.CANCEL, kind, name, asked)
        if kind is Kind.JOB:
            told = Cancelled(asked.ref, job=job_view(await self._dure.cancel(name)))
        else:
            told = Cancelled(asked.ref, workflow=workflow_view(await self._dure.cancel_workflow(name)))
        await self._outbox.send(told)

    async def _unwatch(self, ref: Ref) -> None:
        task = self._watches.pop(ref, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._outbox.send(Done(ref))

    async def _copy(self, ref: Ref, feed: Feed) -> None:
        with self._open_feeds.reading(_OVER):
            try:
                while events := await feed.batch():
                    await self._outbox.send_all(event_of(ref, event) for event in events)
            finally:
                await feed.close()
        await self._outbox.send(Done(ref))

    def _grant_for(self, asked: Asked) -> Grant | None:
        """The message's own token, or the connection's; None is a key's. Raises InvalidToken."""
        return self._grant if asked.token is None else self._tokens.read(asked.token)

    def _require(self, right: Right, kind: Kind, name: str, asked: Asked) -> None:
        """Raises InvalidToken, or NotOpened."""
        grant = self._grant_for(asked)
        if grant is None or grant.allows(right, kind, name):
            return
        own = grant is self._grant and kind is Kind.JOB and name in self._own
        _require(own and (right is Right.WATCH or right in grant.allow) and time.time() < grant.expires_at)


def _require(allowed: bool) -> None:
    if not allowed:
        raise NotOpened
