"""A job as its worker tells of it, attempt by attempt."""

from msgspec import structs

from dure.entry import Entry, EntryKind, Position, Told
from dure.event import JobEvent, fold
from dure.job import Job, State

NOW = 1_800_000_000.0
JOB = Job(id="j", task="t", state=State.QUEUED, created_at=NOW, changed_at=NOW)


def run_of(attempt: int) -> int:
    return 1_000_000 * attempt


def entry(n: int, body: object = None, kind: EntryKind = EntryKind.OUTPUT) -> Entry:
    return Entry(n=n, at=NOW, kind=kind, body=n if body is None else body)


def told(attempt: int, first: int, last: int | None = None) -> Told:
    entries = tuple(entry(n) for n in range(first, (last or first) + 1))
    return Told(job_id="j", run=run_of(attempt), entries=entries, is_first=attempt == 1)


def happened(state: State, attempt: int = 1, **more: object) -> JobEvent:
    at = NOW + attempt * 10 + list(State).index(state)
    given = {"job_id": "j", "state": state, "at": at, "attempt": attempt, "attempts": attempt, "worker": "w"} | more
    return JobEvent(**given)  # type: ignore[arg-type]


def record(*events: JobEvent) -> Job:
    job = JOB
    for each in events:
        job = fold(job, each)
    return job


STARTED = happened(State.STARTED)
SUCCESS = happened(State.SUCCESS, result="r", has_result=True)


def ended_at(attempt: int, n: int) -> JobEvent:
    """Its worker says that it told `n` entries."""
    return structs.replace(SUCCESS, told=Position(run_of(attempt), n))
