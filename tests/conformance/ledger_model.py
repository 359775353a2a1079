"""What a ledger holds, in plain Python: each change is made as the words of its documentation say."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from msgspec import structs

from dure.errors import IdempotencyConflict
from dure.event import JobEvent, fold
from dure.job import Job, JobError, Reason, State, Unique, Until
from dure.ledger import Receipt, Request
from dure.ledger.keys import Outcome

WAITING = {State.ACCEPTED, State.SCHEDULED}
SENT = {State.QUEUED, State.STARTED, State.RETRY}


@dataclass
class Model:
    jobs: dict[str, Job] = field(default_factory=dict)
    due: dict[str, float | None] = field(default_factory=dict)
    checked: dict[str, float | None] = field(default_factory=dict)
    requests: dict[str, tuple[str, tuple[str, ...], float]] = field(default_factory=dict)
    holders: dict[str, tuple[str, Unique]] = field(default_factory=dict)

    def accept(self, batch: Iterable[tuple[Job, float]]) -> None:
        for job, due in batch:
            self._add(job, due)

    def _add(self, job: Job, due: float | None) -> None:
        assert job.id not in self.jobs
        self.jobs[job.id], self.due[job.id], self.checked[job.id] = job, due, None

    def accept_once(self, requests: Sequence[Request], now: float) -> list[Outcome]:
        return [self._accept(request, now) for request in requests]

    def _accept(self, request: Request, now: float) -> Outcome:
        key = request.idempotency
        if key is not None and key.key in self.requests and self.requests[key.key][2] > now:
            mark, ids, _ = self.requests[key.key]
            if mark != key.fingerprint:
                return IdempotencyConflict(key.key)
            return Receipt(jobs=tuple(self.jobs[name] for name in ids), created=frozenset(), replayed=True)
        chosen, created = [], set()
        for job, due in request.jobs:
            unique = request.unique.get(job.id)
            if unique is not None and (holder := self.holder(unique.key, now)) is not None:
                chosen.append(self.jobs[holder])
                continue
            self._add(job, due)
            chosen.append(job)
            created.add(job.id)
            if unique is not None:
                self.holders[unique.key] = (job.id, unique)
        if key is not None:
            self.requests[key.key] = (key.fingerprint, tuple(job.id for job in chosen), key.expires_at)
        return Receipt(jobs=tuple(chosen), created=frozenset(created))

    def holder(self, key: str, now: float) -> str | None:
        if key not in self.holders:
            return None
        name, unique = self.holders[key]
        return name if holds(self.jobs[name], unique, now) else None

    def are_due(self, now: float) -> set[str]:
        return {name for name, due in self.due.items() if due is not None and due <= now}

    def claim(self, names: Iterable[str], until: float) -> None:
        self.due.update(dict.fromkeys(names, until))

    def renew(self, names: Iterable[str], until: float) -> None:
        self.claim((name for name in names if self.due.get(name) is not None), until)

    def mark_queued(self, names: Iterable[str], at: float) -> None:
        for name in names:
            if self.due.get(name) is None:
                continue
            job = self.jobs[name]
            queued_at = at if job.queued_at is None else min(at, job.queued_at)
            if job.state in WAITING:
                job = structs.replace(job, state=State.QUEUED, changed_at=at)
            self.jobs[name] = structs.replace(job, queued_at=queued_at)
            if job.cancel_requested_at is None:
                self.due[name] = None

    def introduce(self, events: Iterable[JobEvent]) -> None:
        """Blank rows for jobs that nobody here submitted."""
        first: dict[str, JobEvent] = {}
        for event in events:
            first.setdefault(event.job_id, event)
        for name in sorted(first.keys() - self.jobs.keys()):
            at = first[name].at
            self._add(Job(id=name, state=State.SCHEDULED, origin="celery", created_at=at, changed_at=at), None)

    def record(self, events: Sequence[JobEvent]) -> set[str]:
        self.introduce(events)
        before = {event.job_id: self.jobs[event.job_id] for event in events}
        for event in events:
            self.jobs[event.job_id] = fold(self.jobs[event.job_id], event)
        changed = {name for name, job in before.items() if self.jobs[name] != job}
        for name in changed:
            job = self.jobs[name]
            ended_by_worker = job.state.final and job.attempt is not None
            if job.cancel_requested_at is None or ended_by_worker:
                self.due[name] = None
        return changed

    def request_cancel(self, name: str, at: float, due_at: float) -> Job:
        """The job is open, or was REVOKED."""
        job = self.jobs[name]
        if job.state is State.REVOKED or (job.state is State.STARTED and job.cancel_requested_at is not None):
            return job
        self.due[name] = None if job.state is State.SCHEDULED and self.due[name] == job.eta else due_at
        if job.state is not State.STARTED:
            revoked = JobEvent(job_id=name, state=State.REVOKED, at=at, reason=Reason.REVOKED)
            job = structs.replace(fold(job, revoked), created_at=job.created_at)
        self.jobs[name] = structs.replace(job, cancel_requested_at=at)
        return self.jobs[name]

    def mark_revoked(self, names: Iterable[str]) -> None:
        self.due.update({name: None for name in names if self.jobs[name].cancel_requested_at is not None})

    def fail_accepted(self, name: str, reason: str, message: str, at: float) -> None:
        job = self.jobs[name]
        if job.attempt is None and job.cancel_requested_at is None:
            error = JobError(type="dure.errors.Unroutable", message=message)
            end = JobEvent(job_id=name, state=State.FAILURE, at=at, reason=reason, error=error)
            folded = fold(job, end)
            if folded != job:
                self.jobs[name], self.due[name] = folded, None

    def silent(self, before: float, limit: int) -> list[Job]:
        unheard = {name for name, at in self.checked.items() if at is None or at < before}
        found = [job for job in self.jobs.values() if job.state in SENT and job.changed_at < before]
        return [job for job in found if job.id in unheard][:limit]

    def expired(self, before: float) -> list[Job]:
        not_begun = [job for job in self.jobs.values() if job.state in WAITING | {State.QUEUED}]
        return [job for job in not_begun if job.started_at is None and job.expires is not None and job.expires < before]

    def drop_expired(self, now: float) -> None:
        self.requests = {key: held for key, held in self.requests.items() if held[2] > now}
        over = {k for k, (job_id, u) in self.holders.items() if self._is_over(job_id, u, now)}
        self.holders = {key: held for key, held in self.holders.items() if key not in over}

    def _is_over(self, job_id: str, unique: Unique, now: float) -> bool:
        if unique.until is Until.TIME:
            return (unique.expires_at or 0.0) <= now
        return self.jobs[job_id].state.final

    def counts(self) -> Counter[State]:
        return Counter(job.state for job in self.jobs.values() if job.state is not State.SUCCESS)


def holds(job: Job, unique: Unique, now: float) -> bool:
    if unique.until is Until.TIME:
        return (unique.expires_at or 0.0) > now
    return not job.state.final and (unique.until is Until.FINISHED or job.started_at is None)
