"""Figures for Prometheus: counters of this process, and gauges read when they are asked for."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.registry import REGISTRY

from dure.client import Dure
from dure.errors import LedgerUnavailable, LinkError
from dure.job import DEAD
from dure.ledger import JobFilter

_ALIVE_SECONDS = 30.0


async def exposition(dure: Dure) -> bytes:
    """What cannot be read now is left out, and `dure_ledger_up` or `dure_broker_up` is 0."""
    gauges = CollectorRegistry()
    ledger_up = Gauge("dure_ledger_up", "Whether the ledger answers.", registry=gauges)
    broker_up = Gauge("dure_broker_up", "Whether the broker answers.", registry=gauges)
    try:
        await _ledger(dure, gauges)
        ledger_up.set(1)
    except LedgerUnavailable:
        ledger_up.set(0)
    try:
        await _broker(dure, gauges)
        broker_up.set(1)
    except (LinkError, LedgerUnavailable):
        broker_up.set(0)
    return generate_latest(REGISTRY) + generate_latest(gauges)


async def _ledger(dure: Dure, registry: CollectorRegistry) -> None:
    jobs = Gauge("dure_jobs", "Jobs in the ledger that have not succeeded, by state.", ["state"], registry=registry)
    for state, count in (await dure.ledger.count_open()).items():
        jobs.labels(state.value).set(count)
    dead = Gauge("dure_jobs_dead", "Dead letters not sent again, by reason.", ["reason"], registry=registry)
    for reason in sorted(DEAD):
        wanted = JobFilter(dead=True, retried=False, reason=reason)
        dead.labels(reason.value).set(await dure.ledger.count_jobs(wanted))
    silent = time.time() - _ALIVE_SECONDS
    online = sum(node.online and node.heartbeat_at > silent for node in await dure.ledger.workers())
    Gauge("dure_workers_online", "Workers heard in the last half minute.", registry=registry).set(online)


async def _broker(dure: Dure, registry: CollectorRegistry) -> None:
    messages = Gauge("dure_queue_messages", "Messages that wait, by queue.", ["queue"], registry=registry)
    consumers = Gauge("dure_queue_consumers", "Consumers, by queue.", ["queue"], registry=registry)
    for queue in await dure.link.queues([*await dure.ledger.queues(), dure.settings.event_queue]):
        messages.labels(queue.name).set(queue.messages)
        consumers.labels(queue.name).set(queue.consumers)
