"""Messages that are given up go to the dead-letter queue, from queues whose broker would drop them.

A queue with a dead-letter exchange of its own needs nobody: there a rejection is enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from amqp.exceptions import AccessRefused
from celery import Celery

from dure.dead import QUEUE_HEADER, REASON_HEADER
from dure.settings import Settings
from dure.wire import ATTEMPT_HEADER
from dure.worker import log
from dure.worker.deliveries import DELIVERIES_HEADER, attempt_number, headers_of_copy
from dure.worker.outbox import Outbox
from dure.worker.post import Post
from dure.worker.queues import DEAD_LETTER_EXCHANGE, declare_dead_letters

_PAUSE = 1.0  # seconds before a message that cannot be given up now goes back


class DeadLetters:
    def __init__(self, app: Celery, settings: Settings, outbox: Outbox, post: Post) -> None:
        self._app = app
        self._settings = settings
        self.outbox = outbox
        self.post = post

    def broker_keeps(self, queue: str | None) -> bool:
        """Whether the broker itself sends what is rejected from this queue to a dead-letter exchange."""
        known: Any = self._app.amqp.queues.consume_from.get(queue or "")
        return known is not None and not known.no_declare and DEAD_LETTER_EXCHANGE in (known.queue_arguments or {})

    def give_up(
        self,
        message: Any,
        reason: str,
        queue: str | None,
        *,
        reject: Callable[[bool], object],
        acknowledge: Callable[[], object] | None = None,
    ) -> None:
        """Settle a message that is not to come again, behind the events so far and once it is a dead letter.

        It is rejected, so that the broker does what it is set up to do; with `acknowledge` it is acknowledged where
        a copy was sent. While no copy can be sent, the message goes back to its queue.
        """
        self.outbox.then(lambda: self._give_up(message, reason, queue, reject, acknowledge))

    def _give_up(
        self,
        message: Any,
        reason: str,
        queue: str | None,
        reject: Callable[[bool], object],
        acknowledge: Callable[[], object] | None,
    ) -> None:
        if self.broker_keeps(queue):
            reject(False)
            return
        try:
            self._send(message, reason, queue)
        except AccessRefused as refusal:
            log.dead_letter_refused(refusal)
        except Exception as exc:
            log.dead_letter_waits(exc)
            time.sleep(_PAUSE)
            reject(True)
            return
        if acknowledge is None:
            reject(False)
        else:
            acknowledge()

    def _send(self, message: Any, reason: str, queue: str | None) -> None:
        told = {REASON_HEADER: str(reason), QUEUE_HEADER: queue or "", ATTEMPT_HEADER: attempt_number(message) - 1}
        headers = headers_of_copy(message.headers or {}, **told)
        headers.pop(DELIVERIES_HEADER, None)
        exchange = self._settings.dead_queue
        try:
            self.post.send(message, headers, exchange, queue or "")
        except AccessRefused:
            raise
        except Exception:  # the exchange or its queue may have been deleted
            self.post.use(lambda connection, _: declare_dead_letters(connection, self._settings))
            self.post.send(message, headers, exchange, queue or "")
