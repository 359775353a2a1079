"""The step that reads the log of cancelled jobs: where it stands, and what it does with an entry."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state
from celery.worker.consumer.tasks import Tasks

from dure.revocation import Revocation
from dure.worker.revocations import Revocations, apply


@pytest.fixture(autouse=True)
def _celerys_state_is_put_back() -> Iterator[None]:
    before = state.revoked.maxlen, state.revoked.expires
    yield
    state.revoked.maxlen, state.revoked.expires = before
    state.reset_state()


class Running:
    def __init__(self) -> None:
        self.ended = 0

    def terminate(self, pool: Any, signal: str) -> None:
        self.ended += 1
        raise ProcessLookupError


@pytest.mark.parametrize("tasks_first", [True, False])
def test_the_log_is_read_before_messages_are_asked_for(tasks_first: bool) -> None:
    parent = SimpleNamespace(steps=[])
    steps = [Tasks(parent), Revocations(parent)]
    for step in steps if tasks_first else reversed(steps):
        step.include(parent)
    assert [type(step) for step in parent.steps] == [Revocations, Tasks]


def test_a_hundred_thousand_cancellations_are_kept() -> None:
    Revocations(SimpleNamespace())
    state.revoked.update(str(number) for number in range(100_000))
    assert "0" in state.revoked


@pytest.mark.parametrize(
    ("late", "terminate", "ended"), [(True, True, 1), (True, False, 0), (False, True, 0), (False, False, 0)]
)
def test_only_a_late_entry_that_says_so_ends_what_runs(late: bool, terminate: bool, ended: int) -> None:
    request = Running()
    state.requests["runs"] = request
    apply(SimpleNamespace(pool=None), Revocation(ids=("waits", "runs"), terminate=terminate), late=late)
    assert request.ended == ended
    assert {"waits", "runs"} <= set(state.revoked)
