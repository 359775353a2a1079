"""kombu's transport over the store: what Celery, kombu consumers and producers talk to.

`dure:///abs/path/broker.db`, once `dure.broker` is imported. Transport options: `busy_timeout` (seconds).

**The loop.** The transport is asynchronous, so Celery's worker runs its main loop (asynloop) on it as it does on
RabbitMQ: remote control, timers, prefork's pipes and acknowledgements from pool threads meet in one poll, which our
wake socket takes part in. `drain_events` is for everyone else (kombu consumers, replies, eventlet and gevent).

**Batches.** Messages are claimed as many at a time as the prefetch leaves free, and handed out one per event, as AMQP
does. Acknowledgements gather until the claimed ones have been handed out, and travel in the transaction of the next
claim; a slow callback cannot keep them waiting, since the settler sends them after a few milliseconds anyway.
"""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections import deque
from itertools import count
from typing import Any
from urllib.parse import unquote, urlsplit

from kombu.exceptions import ChannelError, ConnectionError
from kombu.transport import base

from dure.broker.channel import Channel
from dure.broker.errors import BrokerUnavailable
from dure.broker.message import Delivery
from dure.broker.settler import Settler
from dure.broker.store import Store
from dure.errors import ConfigurationError, Problem

_POLL_EVERY = 0.25  # seconds; for wakes that were lost and for housekeeping
_LOOK_ANYWAY_EVERY = 1.0
_REMEDY = "write it as dure:///absolute/path/broker.db"


class Transport(base.Transport):
    """One store and the channels that share it; its own connection object, as kombu's virtual ones are."""

    driver_type = "dure"
    driver_name = "sqlite"
    connection_errors = (ConnectionError, BrokerUnavailable)
    channel_errors = (ChannelError,)
    recoverable_connection_errors = (ConnectionError, BrokerUnavailable)
    recoverable_channel_errors = ()
    implements = base.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset(["direct", "topic", "fanout"]), heartbeats=False
    )
    can_parse_url = True
    default_connection_params: dict[str, Any] = {}  # noqa: RUF012

    client: Any
    store: Store
    settler: Settler

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.channels: list[Channel] = []
        self.is_open = False
        self._process = os.getpid()
        self._channel_ids = count(1)
        self._claimed: deque[tuple[Channel, str, Delivery]] = deque()
        self._looked_at = 0.0
        self._must_look = True
        self._waiting = False
        # Only with an event loop.
        self._loop: Any = None
        self._loop_thread = 0
        self._poll_timer: Any = None
        self._kicked = False

    @property
    def is_inherited(self) -> bool:
        """Whether this is a forked child's copy, whose messages and consumers are its parent's."""
        return self._process != os.getpid()

    # Connections and channels.

    def establish_connection(self) -> Transport:
        path = unquote(urlsplit(self.client.hostname or "").path)
        if not path.strip("/"):
            raise ConfigurationError([Problem("broker_url", f"{self.client.hostname!r} names no file", _REMEDY)])
        options = self.client.transport_options
        store = Store(path, busy_timeout=options.get("busy_timeout", 30.0))
        store.queues()  # a file that cannot be used is told now
        self.store, self.settler = store, Settler(store)
        self._process = os.getpid()
        self.is_open = self._must_look = True
        self._close_store = weakref.finalize(self, _close, self.store, self.settler, self._process)
        return self

    def verify_connection(self, connection: Transport) -> bool:
        return self.is_open

    def close_connection(self, connection: Transport) -> None:
        self._leave_loop()
        self._claimed.clear()
        self.is_open = False
        for channel in list(self.channels):
            channel.close()
        self._close_store()

    def create_channel(self, connection: Transport) -> Channel:
        channel = Channel(self, next(self._channel_ids))
        self.channels.append(channel)
        return channel

    def close_channel(self, channel: Channel) -> None:
        if channel in self.channels:
            self.channels.remove(channel)

    # Taking messages.

    def drain_events(self, connection: Transport, timeout: float | None = None, **_: Any) -> None:
        """Hand one message to its consumer, waiting for it up to `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._deliver_one():
            self.store.drain_wakes()
            if self._fill():
                continue
            left = _POLL_EVERY if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._wait(min(left, _POLL_EVERY))

    def _deliver_one(self) -> bool:
        if not self._claimed:
            return False
        channel, tag, delivery = self._claimed.popleft()
        channel.deliver(tag, delivery)
        return True

    def _fill(self) -> bool:
        """Acknowledge what is due and claim what is wanted, at once."""
        channels, claims = [], []
        self._must_look = False  # before looking: another thread may want another look meanwhile
        for channel in self.channels:
            for claim in channel.claims():
                channels.append(channel)
                claims.append(claim)
        self._looked_at = time.monotonic()
        for channel, claim, taken in zip(channels, claims, self.settler.turn(claims), strict=True):
            for delivery in taken:
                self._claimed.append((channel, channel.accept(delivery, claim.no_ack), delivery))
        return bool(self._claimed)

    def _wait(self, timeout: float) -> None:
        self._waiting = True
        try:
            if self._must_look:  # since the last claim, by another thread
                return
            fd = self.store.fileno()
            if hasattr(select, "poll"):
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                poll.poll(timeout * 1000)
            else:  # gevent and eventlet take poll away
                select.select([fd], [], [], timeout)
        finally:
            self._waiting = False

    def withdraw(self, channel: Channel, consumer_tag: str) -> list[int]:
        """Take back what was claimed for a consumer that has not seen it."""
        mine = [entry for entry in self._claimed if entry[0] is channel and entry[1] == consumer_tag]
        for entry in mine:
            self._claimed.remove(entry)
        return [delivery.tag for _, _, delivery in mine]

    def forget(self, channel: Channel) -> None:
        self._claimed = deque(entry for entry in self._claimed if entry[0] is not channel)

    def look(self) -> None:
        """A consumer may have room or a wish that it had not before."""
        self._must_look = True
        if self._waiting or (self._loop is not None and threading.get_ident() != self._loop_thread):
            self.store.wake()

    # Celery's event loop.

    def register_with_event_loop(self, connection: Transport, loop: Any) -> None:
        self._loop, self._loop_thread = loop, threading.get_ident()
        loop.add_reader(self.store.fileno(), self._on_readable)
        loop.on_tick.add(self._on_tick)
        self._poll_timer = loop.call_repeatedly(_POLL_EVERY, self._on_poll)

    def _on_readable(self) -> None:
        # One message a turn, like AMQP: acknowledgements and remote control come in between.
        if not self._claimed:
            self._kicked = False
            self.store.drain_wakes()
            self._fill()
        self._deliver_one()

    def _on_tick(self) -> None:
        # The hub is about to wait; a byte to ourselves has it come back at once.
        if not self._kicked and (self._claimed or self._must_look):
            self._kicked = True
            self.store.wake()

    def _on_poll(self) -> None:
        if self.is_open and (self.store.changed() or time.monotonic() - self._looked_at >= _LOOK_ANYWAY_EVERY):
            self.look()

    def _leave_loop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None:
            return
        loop.on_tick.discard(self._on_tick)
        self._poll_timer.cancel()
        if self.is_open and not self.is_inherited:
            loop.remove_reader(self.store.fileno())


def _close(store: Store, settler: Settler, process: int) -> None:
    """Also run when the transport is collected or the interpreter ends."""
    if process == os.getpid():
        try:
            settler.close()
        finally:
            store.close()
