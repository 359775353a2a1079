import asyncio
import contextvars
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import dure
from dure.entry import EntryKind, read_entries
from dure.worker.live.attempt import Attempt, Eager, current
from dure.worker.live.emitter import Emitter
from tests.unit.live_broker import DEADLINE, Broker


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def attempt(broker: Broker) -> Iterator[Attempt]:
    attempt = Attempt(Emitter(broker), "job", task="shop.buy", root_id="root", worker="w@host")
    token = current.set(attempt)
    yield attempt
    current.reset(token)


def small(broker: Broker, **options: Any) -> Attempt:
    attempt = Attempt(Emitter(broker, most_entries=3, **options), "job")
    current.set(attempt)
    return attempt


def flush(attempt: Attempt) -> None:
    attempt.sink.flush(attempt)
    assert attempt.confirmed == attempt.accepted


def test_what_was_emitted_is_with_the_broker_after_a_flush(broker: Broker, attempt: Attempt) -> None:
    for n in range(100):
        dure.emit(n)
    flush(attempt)
    assert broker.bodies() == list(range(100))


def test_a_message_names_all_that_may_be_watched_of_its_jobs(broker: Broker, attempt: Attempt) -> None:
    dure.emit(1)
    flush(attempt)
    ((body, keys),) = broker.sent
    assert keys == ["dure-job-job", "dure.task.shop.buy", "dure-root-root"]
    (told,) = read_entries(body)
    assert (told.run, told.task, told.root_id, told.worker) == (attempt.run, "shop.buy", "root", "w@host")


def test_a_chunk_is_told_as_it_was_when_it_was_emitted(broker: Broker, attempt: Attempt) -> None:
    chunk = {"n": 1}
    dure.emit(chunk)
    chunk["n"] = 2
    flush(attempt)
    assert broker.bodies() == [{"n": 1}]


def test_attempts_share_messages_and_keep_their_own_numbers(broker: Broker) -> None:
    emitter = Emitter(broker)
    attempts = [Attempt(emitter, f"job-{n}") for n in range(50)]
    for n in range(20):
        for attempt in attempts:
            attempt.emit(n)
    for attempt in attempts:
        flush(attempt)
    assert all(broker.bodies(attempt.job_id) == list(range(20)) for attempt in attempts)
    assert len(broker.sent) < 1000


def test_large_entries_leave_in_messages_of_their_own(broker: Broker, attempt: Attempt) -> None:
    for _ in range(10):
        dure.emit("x" * 200_000)
    flush(attempt)
    assert [len(body) for body in broker.bodies()] == [200_000] * 10
    assert max(len(body) for body, _ in broker.sent) < 300_000


def test_what_was_not_confirmed_is_sent_again_in_its_order(broker: Broker, attempt: Attempt) -> None:
    broker.confirms.clear()
    dure.emit(1)
    assert broker.tried.wait(DEADLINE)
    broker.tried.clear()
    broker.trouble = ConnectionError("cut")
    dure.emit(2)
    assert broker.tried.wait(DEADLINE)
    broker.trouble = None
    broker.confirms.set()
    dure.emit(3)
    flush(attempt)
    assert broker.bodies() == [1, 2, 3]
    assert broker.sent[0] == broker.sent[1], "the first was sent twice"


def test_what_the_broker_will_never_take_is_dropped_and_keeps_nobody(broker: Broker, attempt: Attempt) -> None:
    broker.trouble = PermissionErrorOfTheBroker("no")
    dure.emit(1)
    flush(attempt)
    assert broker.sent == []


class PermissionErrorOfTheBroker(Exception):
    """Not an OSError."""


def test_a_task_ends_in_time_though_the_broker_is_away(broker: Broker) -> None:
    broker.trouble = ConnectionError("away")
    attempt = small(broker, flush_timeout=0.05)
    dure.emit(1)
    attempt.sink.flush(attempt, close=True)
    assert (attempt.accepted, attempt.confirmed) == (1, 0)
    broker.trouble = None
    attempt.sink._flush_timeout = DEADLINE  # type: ignore[attr-defined]  # it tries again in its own time
    flush(attempt)
    assert broker.bodies() == [1]


def test_beyond_the_bound_a_task_waits_until_the_broker_has_confirmed(broker: Broker) -> None:
    attempt = small(broker, patience=DEADLINE)
    broker.confirms.clear()
    thread = threading.Thread(target=contextvars.copy_context().run, args=(emit_all, 10))
    thread.start()
    assert broker.tried.wait(DEADLINE)
    thread.join(0.05)
    assert thread.is_alive()
    broker.confirms.set()
    thread.join(DEADLINE)
    flush(attempt)
    assert broker.bodies() == list(range(10))


def emit_all(times: int) -> None:
    for n in range(times):
        dure.emit(n)


def test_beyond_patience_entries_are_dropped_and_a_line_says_how_many(broker: Broker) -> None:
    attempt = small(broker, patience=0.05)
    broker.confirms.clear()
    emit_all(10)
    broker.confirms.set()
    flush(attempt)
    dure.emit("later")
    flush(attempt)
    assert [entry.body for entry in broker.entries() if entry.kind is EntryKind.OUTPUT] == [0, 1, 2, "later"]
    (line,) = [entry.body for entry in broker.entries() if entry.kind is EntryKind.LOG]
    assert (line["level"], line["message"].split()[0]) == ("WARNING", "7")


def test_an_event_loop_is_not_kept_waiting(broker: Broker) -> None:
    attempt = small(broker, patience=3600)
    broker.confirms.clear()

    async def body() -> None:
        emit_all(10)

    asyncio.run(body())
    broker.confirms.set()
    flush(attempt)
    assert attempt.accepted == 4  # one line says that the rest was dropped


def test_progress_is_put_off_and_the_last_one_leaves_by_itself(broker: Broker, attempt: Attempt) -> None:
    for n in range(1, 51):
        dure.progress(n, 50)
    seen = threading.Event()
    for _ in range(2000):
        if any(entry.body["current"] == 50 for entry in broker.entries()):
            seen.set()
            break
        threading.Event().wait(0.01)
    assert seen.is_set()
    assert broker.bodies()[0] == {"current": 1, "total": 50, "message": None}
    assert len(broker.entries()) < 50
    assert attempt.late is None


def test_after_its_end_an_attempt_tells_nothing(broker: Broker, attempt: Attempt) -> None:
    dure.emit(1)
    attempt.sink.flush(attempt, close=True)
    with pytest.raises(RuntimeError, match="its task has ended"):
        dure.emit(2)
    with pytest.raises(RuntimeError, match="its task has ended"):
        dure.progress(2)
    attempt.line("INFO", "shop", "nobody hears")
    assert broker.bodies() == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_in_a_forked_child_an_attempt_tells_nothing_and_waits_for_nobody(broker: Broker, attempt: Attempt) -> None:
    dure.emit(1)
    child = os.fork()
    if child == 0:
        try:
            dure.emit(2)
        except RuntimeError:
            attempt.sink.flush(attempt)
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    flush(attempt)
    assert broker.bodies() == [1]


def test_outside_of_a_task_there_is_nobody_to_tell() -> None:
    with pytest.raises(RuntimeError, match=r"dure\.emit\(\) is called outside of a task"):
        contextvars.Context().run(dure.emit, 1)
    with pytest.raises(RuntimeError, match=r"dure\.progress\(\) is called outside of a task"):
        contextvars.Context().run(dure.progress, 1)


def test_a_task_that_is_run_in_place_tells_nothing(attempt: Attempt, broker: Broker) -> None:
    current.set(Eager(attempt))
    dure.emit(1)
    dure.progress(1)
    flush(attempt)
    assert broker.sent == []


@pytest.mark.parametrize("current_", ["3", True, float("nan")])
def test_progress_takes_numbers(attempt: Attempt, current_: Any) -> None:
    with pytest.raises(TypeError, match="give a finite number"):
        dure.progress(current_)


def test_a_chunk_is_encoded_as_a_result_is(broker: Broker, attempt: Attempt) -> None:
    dure.emit((float("nan"), {1: "a"}))
    flush(attempt)
    assert broker.bodies() == [[None, {"1": "a"}]]


def test_what_is_no_json_or_too_large_is_an_error_that_says_what_to_do(attempt: Attempt) -> None:
    with pytest.raises(TypeError, match="give plain values"):
        dure.emit(object())
    with pytest.raises(ValueError, match="emit a reference"):
        dure.emit("x" * 262_143)
    dure.emit("x" * 262_142)
    flush(attempt)
