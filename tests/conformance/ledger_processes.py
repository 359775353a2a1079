"""Other processes that use a ledger: several at once, and such as are killed in the middle."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from typing import Any

from dure.errors import IdempotencyConflict
from dure.event import JobEvent
from dure.ledger import Ledger, Receipt, Request
from tests.conformance.ledgers import NOW, PATIENCE, before_commits

Told = list[tuple[str, ...] | None]  # of each request its jobs, None for a conflict


@cache
def _processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "sqlalchemy.dialects.postgresql.psycopg", "aiosqlite"])
    return context


def submitted_at_once(url: str, shares: Sequence[Sequence[Request]]) -> list[Told]:
    """Each share is submitted by a process of its own, one request at a time, all processes at the same time."""
    context = _processes()
    ready = context.Barrier(len(shares))
    pipes = [context.Pipe() for _ in shares]
    processes = [
        context.Process(target=_submit, args=(url, share, ready, answers))
        for share, (_, answers) in zip(shares, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        found = [pipe.recv() for pipe, _ in pipes if pipe.poll(PATIENCE)]
        assert len(found) == len(shares)
        return found
    finally:
        for process in processes:
            process.kill()
            process.join()


def _submit(url: str, share: Sequence[Request], ready: Any, answers: Any) -> None:
    async def submit() -> Told:
        ledger = Ledger(url)
        await ledger.open()
        ready.wait(PATIENCE)
        told = [outcome for request in share for outcome in await ledger.accept_once([request], NOW)]
        await ledger.close()
        return [None if isinstance(each, IdempotencyConflict) else names(each) for each in told]

    answers.send(asyncio.run(submit()))


def names(receipt: Receipt) -> tuple[str, ...]:
    return tuple(job.id for job in receipt.jobs)


def recorded_at_once(
    url: str, shares: Sequence[Sequence[Sequence[JobEvent]]], confirmed: Sequence[Sequence[str]]
) -> list[str]:
    """Each share is recorded by a process of its own, one batch after the other, while one more writes down what the
    broker confirmed; returns the jobs that they would have published."""
    context = _processes()
    ready = context.Barrier(len(shares) + 1)
    pipes = [context.Pipe() for _ in range(len(shares) + 1)]
    calls = [("record", share) for share in shares] + [("mark_queued", confirmed)]
    processes = [
        context.Process(target=_write, args=(url, method, batches, ready, answers))
        for (method, batches), (_, answers) in zip(calls, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        found = [pipe.recv() for pipe, _ in pipes if pipe.poll(PATIENCE * 3)]
        assert len(found) == len(processes)
        return [job_id for released in found for job_id in released]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _write(url: str, method: str, batches: Sequence[Sequence[Any]], ready: Any, answers: Any) -> None:
    async def write() -> list[str]:
        ledger = Ledger(url)
        released: list[str] = []
        ledger.on_release = lambda jobs: released.extend(job.id for job in jobs)
        await ledger.open()
        ready.wait(PATIENCE)
        for batch in batches:
            await getattr(ledger, method)(batch, **({"at": NOW + 1} if method == "mark_queued" else {}))
        await ledger.close()
        return released

    answers.send(asyncio.run(write()))


def killed_in_the_middle(url: str, commit: int, method: str, *args: Any, **kwargs: Any) -> None:
    """A process calls the ledger, and is killed when it is about to commit for the `commit`th time."""
    process = _processes().Process(target=_die, args=(url, commit, method, args, kwargs))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL


def _die(url: str, commit: int, method: str, args: Any, kwargs: Any) -> None:
    async def call() -> None:
        ledger = Ledger(url)
        commits = iter(range(1, commit + 1))

        def die_at_last(_: Any) -> None:
            if next(commits) == commit:
                os.kill(os.getpid(), signal.SIGKILL)

        with before_commits(ledger, method, die_at_last):
            await getattr(ledger, method)(*args, **kwargs)

    asyncio.run(call())
