"""The client for programs without asyncio, on the embedded broker with a worker that is played here."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dure import JobFailed, LedgerUnavailable, ResultTimeout, State, Submission, SyncDure, UnknownJob, UnknownTask
from dure.event import JobEvent
from dure.job import JobError
from dure.settings import load


@pytest.fixture
def dure(tmp_path: Path) -> Iterator[SyncDure]:
    with SyncDure(load(home=tmp_path)) as dure:
        yield dure


def end(dure: SyncDure, job_id: str, **outcome: object) -> None:
    """What the recorder writes when a worker has told the end."""
    event = JobEvent(job_id=job_id, at=2e9, worker="w@h", attempt=0, attempts=1, **outcome)  # type: ignore[arg-type]
    dure._call(lambda: dure._dure.ledger.record([event]))


def test_a_job_is_submitted_and_looked_up_from_plain_code(dure: SyncDure) -> None:
    handle = dure.submit("sums.add", 2, 3, force=True, queue="sums")
    assert dure.job(handle.id).args == [2, 3]
    assert dure.job(handle.id).queue == "sums"
    assert dure.handle(handle.id).id == handle.id
    assert handle.refresh().task == "sums.add"
    assert repr(handle).startswith("<SyncJobHandle sums.add[")


def test_the_result_is_waited_for(dure: SyncDure) -> None:
    handle = dure.submit("sums.add", 2, 3, force=True)
    told = {"state": State.SUCCESS, "result": 5, "has_result": True}
    telling = threading.Thread(target=end, args=(dure, handle.id), kwargs=told)
    telling.start()
    assert handle.result(timeout=10) == 5
    telling.join()  # its call is over before the client ends
    assert handle.job.state is State.SUCCESS


def test_a_failure_is_raised_with_its_record(dure: SyncDure) -> None:
    handle = dure.submit("sums.add", 2, 3, force=True)
    end(dure, handle.id, state=State.FAILURE, error=JobError(type="ValueError", message="no"))
    with pytest.raises(JobFailed) as failed:
        handle.result(timeout=10)
    assert failed.value.job.error == JobError(type="ValueError", message="no")


def test_a_wait_ends_in_time(dure: SyncDure) -> None:
    with pytest.raises(ResultTimeout):
        dure.submit("sums.add", force=True).wait(timeout=0.05)


def test_many_are_submitted_as_one_or_not_at_all(dure: SyncDure) -> None:
    handles = dure.submit_many(Submission(task="sums.add", args=[i], force=True) for i in range(20))
    assert len({handle.id for handle in handles}) == 20
    with pytest.raises(UnknownTask):
        dure.submit_many([Submission(task="sums.add", force=True), Submission(task="sums.sub")])


def test_several_threads_use_one_client(dure: SyncDure) -> None:
    with ThreadPoolExecutor(8) as threads:
        handles = list(threads.map(lambda i: dure.submit("sums.add", i, force=True), range(40)))
    assert sorted(dure.job(handle.id).args or [] for handle in handles) == [[i] for i in range(40)]


def test_an_unknown_id_is_an_error(dure: SyncDure) -> None:
    with pytest.raises(UnknownJob):
        dure.job("nobody")


def test_a_ledger_that_is_away_is_an_error_on_entering() -> None:
    with (
        pytest.raises(LedgerUnavailable),
        SyncDure(load(ledger_url="postgresql://u@127.0.0.1:1/x", broker_url="dure:////tmp/none/b.db")),
    ):
        pass


def test_outside_its_context_it_says_how_it_is_used(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="with SyncDure"):
        SyncDure(load(home=tmp_path)).submit("sums.add", force=True)


def test_after_its_context_its_thread_is_gone(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with SyncDure(load(home=tmp_path)) as dure:
        dure.submit("sums.add", force=True)
    left = set(threading.enumerate()) - before
    assert "dure-client" not in {thread.name for thread in left}
    for thread in left:  # those of SQLite are told to end, and not waited for
        thread.join(10)
        assert not thread.is_alive()
