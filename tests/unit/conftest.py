"""What unit tests share."""

import logging
from collections.abc import Iterator

import pytest
from celery import _state
from celery.app import builtins


@pytest.fixture(autouse=True)
def _no_tasks_of_other_applications(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery gives each application the tasks of all others in its process; other tests have made some."""
    own = {make for make in _state._on_app_finalizers if make.__module__ == builtins.__name__}  # type: ignore[attr-defined]
    monkeypatch.setattr(_state, "_on_app_finalizers", own)


@pytest.fixture(autouse=True)
def _logging_stays_on() -> Iterator[None]:
    """A command that prints for a person switches it off for the whole process."""
    yield
    logging.disable(logging.NOTSET)
