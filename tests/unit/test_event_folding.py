"""Folding: whatever order events come in, and however often, a job has one record."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from dure.event import JobEvent, fold, standing
from dure.job import Job, JobError, Reason, State
from dure.wire import read_events

END_RANK = {State.REVOKED: 1, State.FAILURE: 2, State.SUCCESS: 3}

times = st.integers(0, 12).map(lambda tenth: 1_700_000_000 + tenth / 10)
ids = st.sampled_from(["one", "two"])


def told(kind: str, **fields: Any) -> JobEvent:
    """The event as it comes off the wire."""
    whole = {"type": f"task-{kind}", "uuid": "one", "timestamp": 100.0, "hostname": "stock@a"} | fields
    (event,) = read_events(msgspec.json.encode(whole))
    assert isinstance(event, JobEvent)
    return event


def folded(events: list[JobEvent], job: Job | None = None) -> Job:
    for event in events:
        job = fold(job, event)
    assert job is not None
    return job


@st.composite
def told_events(draw: st.DrawFn) -> JobEvent:
    kind = draw(
        st.sampled_from(["sent", "received", "started", "retried", "succeeded", "failed", "revoked", "rejected"])
    )
    fields: dict[str, Any] = {
        "uuid": draw(ids),
        "timestamp": draw(times),
        "hostname": draw(st.sampled_from(["stock@a", "ours@b"])),
    }
    if draw(st.booleans()):
        fields["attempt"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        fields |= {"name": draw(st.sampled_from(["t.add", "t.mul"])), "queue": "q", "retries": draw(st.integers(0, 2))}
        fields |= {"args": draw(st.sampled_from(["(1,)", "(2,)"])), "root_id": draw(st.sampled_from(["r", "s"]))}
    match kind:
        case "succeeded":
            fields |= draw(st.sampled_from([{"value": {"b": 1, "a": [None]}}, {"value": None}, {"result": "'3'"}]))
            fields["runtime"] = draw(st.sampled_from([0.5, 1.5]))
        case "failed" | "retried":
            error = {"type": "ValueError", "message": draw(st.sampled_from(["x", "y"]))}
            fields |= draw(st.sampled_from([{"error": error}, {"exception": "KeyError('k')", "traceback": "t"}]))
        case "revoked":
            fields |= {"expired": draw(st.booleans()), "terminated": draw(st.booleans())}
        case "rejected":
            fields["requeue"] = draw(st.booleans())
    return told(kind, **fields)


submitted = st.builds(
    Job,
    id=st.just("one"),
    task=st.just("t.add"),
    state=st.sampled_from([State.ACCEPTED, State.SCHEDULED, State.QUEUED]),
    args=st.just([1]),
    kwargs=st.just({}),
    queue=st.just("q"),
    created_at=times,
    changed_at=times,
    queued_at=times | st.none(),
)

# As cancelling leaves a row: ended where nobody had begun the job, else as it was.
cancelled = st.builds(
    structs.replace,
    submitted,
    state=st.just(State.REVOKED),
    reason=st.just(Reason.REVOKED),
    finished_at=times,
    cancel_requested_at=times,
) | st.builds(
    structs.replace,
    submitted,
    state=st.just(State.STARTED),
    attempt=st.integers(0, 2),
    worker=st.just("ours@b"),
    started_at=times,
    cancel_requested_at=times,
)

# The cancellation as an event, for jobs whose row is not there yet.
revocations = st.builds(JobEvent, job_id=ids, state=st.just(State.REVOKED), at=times, reason=st.just(Reason.REVOKED))


def records(events: list[JobEvent], row: Job | None) -> dict[str, Job]:
    found: dict[str, Job] = {} if row is None else {row.id: row}
    for event in events:
        found[event.job_id] = fold(found.get(event.job_id), event)
    return found


@given(st.data(), st.lists(told_events(), min_size=1, max_size=9), st.none() | submitted)
@settings(max_examples=400, deadline=None)
def test_any_order_and_any_repetition_give_the_same_record(
    data: st.DataObject, history: list[JobEvent], row: Job | None
) -> None:
    repeated = history + data.draw(st.lists(st.sampled_from(history), max_size=4))
    shuffled = data.draw(st.permutations(repeated))
    assert records(shuffled, row) == records(history, row)


@given(st.data(), st.lists(told_events() | revocations, min_size=1, max_size=9), cancelled)
@settings(max_examples=300)
def test_events_of_a_cancelled_job_give_the_same_record_in_any_order(
    data: st.DataObject, history: list[JobEvent], row: Job
) -> None:
    repeated = history + data.draw(st.lists(st.sampled_from(history), max_size=4))
    shuffled = data.draw(st.permutations(repeated))
    assert records(shuffled, row) == records(history, row)


@given(st.lists(told_events() | revocations, min_size=1, max_size=9), cancelled)
def test_a_cancelled_job_ends_otherwise_only_by_a_workers_word(history: list[JobEvent], row: Job) -> None:
    mine = [event for event in history if event.job_id == row.id]
    job = folded(mine, row) if mine else row
    assert job.cancel_requested_at == row.cancel_requested_at
    if row.state is State.REVOKED:
        ends = {event.state for event in mine} & {State.SUCCESS, State.FAILURE}
        assert job.state is max({State.REVOKED, *ends}, key=lambda state: END_RANK[state])


@given(st.lists(told_events(), min_size=1, max_size=9), st.none() | submitted)
def test_an_end_is_left_only_for_a_higher_end(history: list[JobEvent], row: Job | None) -> None:
    before = {} if row is None else {row.id: row}
    for event in history:
        old = before.get(event.job_id)
        new = fold(old, event)
        if old is not None and old.state.final and new != old:
            assert END_RANK[new.state] >= END_RANK[old.state]
            assert new.finished_at is not None
        before[event.job_id] = new


@given(st.lists(told_events(), min_size=1, max_size=9), submitted)
def test_what_was_submitted_is_never_changed_by_an_event(history: list[JobEvent], row: Job) -> None:
    job = folded([event for event in history if event.job_id == "one"], row)
    for name in ("task", "args", "kwargs", "queue", "created_at", "eta", "args_repr", "origin", "tags"):
        assert getattr(job, name) == getattr(row, name)


@given(st.lists(told_events(), min_size=1, max_size=9), st.none() | submitted)
def test_a_record_reads_back_as_it_was_between_two_events(history: list[JobEvent], row: Job | None) -> None:
    """The ledger stands between two folds, and it stores JSON."""
    job = row
    for event in history:
        if event.job_id == "one":
            job = fold(job, event)
            assert fold(msgspec.json.decode(msgspec.json.encode(job), type=Job), event) == job


ENDS = {
    State.SUCCESS: lambda **fields: told("succeeded", value=1, **fields),
    State.FAILURE: lambda **fields: told("failed", error={"type": "E", "message": ""}, **fields),
    State.REVOKED: lambda **fields: told("revoked", **fields),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("still", ["sent", "received", "started", "retried"])
def test_an_end_is_above_whatever_is_open(end: State, still: str) -> None:
    late = told(still, timestamp=999.0, attempt=9)
    assert folded([ENDS[end](attempt=1), late]).state is end
    assert folded([late, ENDS[end](attempt=1)]).state is end


@pytest.mark.parametrize(("low", "high"), list(itertools.combinations(END_RANK, 2)))
def test_success_is_above_failure_is_above_revoked(low: State, high: State) -> None:
    for first, second in itertools.permutations((ENDS[low](timestamp=1.0), ENDS[high](timestamp=2.0))):
        assert folded([first, second]).state is high
    for first, second in itertools.permutations((ENDS[low](timestamp=2.0), ENDS[high](timestamp=1.0))):
        assert folded([first, second]).state is high


@pytest.mark.parametrize("end", [State.SUCCESS, State.FAILURE])
def test_a_worker_that_ran_a_cancelled_job_to_its_end_is_believed(end: State) -> None:
    row = Job(id="one", state=State.REVOKED, reason="revoked", finished_at=5.0, cancel_requested_at=5.0, changed_at=5.0)
    for attempt in ({}, {"attempt": 3}):
        job = folded([told("started", timestamp=1.0, **attempt), ENDS[end](timestamp=2.0, **attempt)], row)
        assert (job.state, job.worker, job.finished_at, job.cancel_requested_at) == (end, "stock@a", 2.0, 5.0)
    assert folded([told("started", timestamp=9.0, attempt=2)], row).state is State.REVOKED


def test_of_two_ends_of_one_kind_the_first_attempt_holds() -> None:
    first, second = told("succeeded", attempt=1, timestamp=9.0, value=1), told("succeeded", attempt=2, value=2)
    assert folded([first, second]).result == folded([second, first]).result == 1


def test_what_a_worker_said_is_above_what_the_submitter_said_whatever_the_clocks() -> None:
    sent, received = told("sent", timestamp=500.0), told("started", timestamp=100.0, attempt=1)
    row = Job(id="one", state=State.QUEUED, created_at=400.0, changed_at=450.0)
    assert folded([sent, received], row).state is folded([received, sent], row).state is State.STARTED


def test_among_open_states_the_highest_attempt_decides() -> None:
    first, second = told("started", attempt=1, timestamp=9.0), told("received", attempt=2, timestamp=1.0)
    job = folded([second, first])
    assert (job.state, job.attempt, job.attempts) == (State.QUEUED, 2, 2)


def test_in_one_attempt_the_furthest_state_decides_then_the_latest_time() -> None:
    received, started = told("received", attempt=1, timestamp=9.0), told("started", attempt=1, timestamp=1.0)
    again = told("started", attempt=1, timestamp=2.0, hostname="other@b")
    assert folded([started, received]).state is State.STARTED
    assert folded([again, started]).worker == "other@b"


def test_of_unnumbered_attempts_the_latest_time_decides_before_the_state() -> None:
    retried, started = told("retried", timestamp=1.0, exception="E()"), told("started", timestamp=2.0)
    assert folded([started, retried]).state is folded([retried, started]).state is State.STARTED


def test_a_numbered_attempt_is_above_an_unnumbered_one() -> None:
    assert standing(State.QUEUED, 1, 0.0) > standing(State.RETRY, 0, 99.0) > standing(State.QUEUED, None, 999.0)


def test_two_messages_sent_for_one_job_are_told_apart_by_their_time() -> None:
    """A stock worker's retry sends the job again, under its id."""
    first, again = told("sent", timestamp=1.0), told("sent", timestamp=2.0)
    assert folded([first, again]) == folded([again, first])


def test_times_are_the_first_told_and_counts_the_highest() -> None:
    events = [
        told("received", attempt=2, timestamp=5.0),
        told("received", attempt=1, timestamp=2.0),
        told("started", attempt=1, timestamp=3.0),
        told("started", attempt=2, timestamp=6.0),
        told("sent", timestamp=1.0),
    ]
    job = folded(events)
    assert (job.queued_at, job.received_at, job.started_at, job.created_at) == (1.0, 2.0, 3.0, 1.0)
    assert job.attempts == 2


def test_a_later_attempt_takes_the_error_of_the_one_before_away() -> None:
    job = folded([told("retried", attempt=1, error={"type": "E", "message": "m"}), told("started", attempt=2)])
    assert job.error is None
    job = folded([told("retried", attempt=1, error={"type": "E", "message": "m"})])
    assert job.error == JobError(type="E", message="m")


def test_a_job_that_nobody_submitted_here_has_celery_for_its_origin() -> None:
    job = folded([told("received", name="t.add", args="(1,)", kwargs="{}", eta="2026-01-01T00:00:00")])
    assert (job.origin, job.task, job.args, job.args_repr, job.eta) == ("celery", "t.add", None, "(1,)", 1767225600.0)
